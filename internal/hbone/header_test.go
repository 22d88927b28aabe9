package hbone_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"github.com/tulle-mesh/tulle/internal/hbone"
)

func TestRequestHeaders(t *testing.T) {
	const malformed = "reset"
	for name, test := range map[string]struct {
		fields []string
		want   string // status, or malformed
	}{
		"connect":             {[]string{":method", "CONNECT", ":authority", "10.0.0.7:1"}, "200"},
		"unknown field":       {[]string{":method", "CONNECT", ":authority", "10.0.0.7:1", "x-other", "1"}, "200"},
		"odd authority":       {[]string{":method", "CONNECT", ":authority", "no port"}, "200"}, // the handler's to refuse
		"baggage in parts":    {[]string{":method", "CONNECT", ":authority", "a:1", "baggage", "a=1", "baggage", "b=2"}, "200"},
		"get":                 {[]string{":method", "GET", ":scheme", "http", ":path", "/"}, "200"},
		"no method":           {[]string{":authority", "10.0.0.7:1"}, malformed},
		"no authority":        {[]string{":method", "CONNECT"}, malformed},
		"empty authority":     {[]string{":method", "CONNECT", ":authority", ""}, malformed},
		"connect with path":   {[]string{":method", "CONNECT", ":authority", "a:1", ":path", "/"}, malformed},
		"connect with scheme": {[]string{":method", "CONNECT", ":authority", "a:1", ":scheme", "https"}, malformed},
		"extended connect":    {[]string{":method", "CONNECT", ":protocol", "websocket", ":scheme", "https", ":path", "/", ":authority", "a:1"}, malformed},
		"status":              {[]string{":method", "CONNECT", ":authority", "a:1", ":status", "200"}, malformed},
		"authority twice":     {[]string{":method", "CONNECT", ":authority", "a:1", ":authority", "b:1"}, malformed},
		"pseudo field late":   {[]string{":method", "CONNECT", "x", "y", ":authority", "a:1"}, malformed},
		"upper case":          {[]string{":method", "CONNECT", ":authority", "a:1", "X-Upper", "1"}, malformed},
		"line break":          {[]string{":method", "CONNECT", ":authority", "a:1", "baggage", "a\r\nb: c"}, malformed},
		"connection":          {[]string{":method", "CONNECT", ":authority", "a:1", "connection", "close"}, malformed},
		"transfer-encoding":   {[]string{":method", "CONNECT", ":authority", "a:1", "transfer-encoding", "chunked"}, malformed},
		"te":                  {[]string{":method", "CONNECT", ":authority", "a:1", "te", "gzip"}, malformed},
		"forwarded twice":     {[]string{":method", "CONNECT", ":authority", "a:1", "forwarded", "for=a", "forwarded", "for=b"}, malformed},
		"network twice":       {[]string{":method", "CONNECT", ":authority", "a:1", "x-forwarded-network", "a", "x-forwarded-network", "b"}, malformed},
		"content-length":      {[]string{":method", "GET", ":scheme", "http", ":path", "/", "content-length", "-1"}, malformed},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				attack(t, &hbone.Server{Handler: hold}, func(p *rawPeer) {
					_ = p.headers(1, false, test.fields...)
					synctest.Wait()
					code, reset := p.reset(1)
					switch {
					case test.want == malformed && (!reset || code != http2.ErrCodeProtocol || p.statusOf(1) != ""):
						t.Errorf("reset %v with %v, status %q; want a reset with PROTOCOL_ERROR", reset, code, p.statusOf(1))
					case test.want != malformed && (reset || p.statusOf(1) != test.want):
						t.Errorf("status %q (reset %v), want %q", p.statusOf(1), reset, test.want)
					}
					_ = p.connect(3)
					synctest.Wait()
					if got := p.statusOf(3); got != "200" {
						t.Errorf("the next request was answered %q", got)
					}
				})
			})
		})
	}
}

func TestHeadersAfterConnectResetTheStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		attack(t, &hbone.Server{Handler: hold}, func(p *rawPeer) {
			_ = p.connect(1)
			_ = p.headers(1, true, "trailer-field", "x")
			synctest.Wait()
			if code, ok := p.reset(1); !ok || code != http2.ErrCodeProtocol {
				t.Errorf("reset %v %v, want PROTOCOL_ERROR", ok, code)
			}
		})
	})
}

func TestResponseHeaders(t *testing.T) {
	for name, test := range map[string]struct {
		fields []string
		status int // 0: malformed
	}{
		"ok":         {[]string{":status", "200"}, 200},
		"refused":    {[]string{":status", "401", "content-length", "0"}, 401},
		"no status":  {[]string{"baggage", "a=b"}, 0},
		"bad status": {[]string{":status", "2000"}, 0},
		"words":      {[]string{":status", "abc"}, 0},
		"method":     {[]string{":status", "200", ":method", "GET"}, 0},
		"upgrade":    {[]string{":status", "200", "upgrade", "x"}, 0},
		"too large":  {[]string{":status", "200", "x", strings.Repeat("x", 9<<10), "y", strings.Repeat("y", 9<<10)}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, s := net.Pipe()
				client, err := hbone.NewClient(c, hbone.ClientConfig{})
				if err != nil {
					t.Fatal(err)
				}
				p := newRawPeer(t, s)
				_, _ = s.Read(make([]byte, len(http2.ClientPreface)))
				p.listen()
				_ = p.WriteSettings()
				go func() {
					synctest.Wait()
					_ = p.headers(1, false, test.fields...)
				}()
				stream, response, err := client.Open(t.Context(), anyRequest)
				var status *hbone.StatusError
				var reset *hbone.StreamError
				switch {
				case test.status == 200 && (err != nil || response.Status != 200):
					t.Errorf("Open: %v, %v", response, err)
				case test.status == 0 && (!errors.As(err, &reset) || reset.Code != hbone.CodeProtocol):
					t.Errorf("Open: %v, want a reset with PROTOCOL_ERROR", err)
				case test.status > 200 && (!errors.As(err, &status) || status.Status != test.status):
					t.Errorf("Open: %v, want status %d", err, test.status)
				}
				if stream != nil {
					_ = stream.Close()
				}
				_ = client.Close()
				_ = s.Close()
				p.reading.Wait()
			})
		})
	}
}

func TestOpenRefusesWhatCannotBeSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := tunnelPair(t, pipeConns, &hbone.Server{Handler: hold}, hbone.ClientConfig{})
		for name, r := range map[string]hbone.Request{
			"no authority": {},
			"no port":      {Authority: "10.0.0.7"},
			"port 0":       {Authority: "10.0.0.7:0"},
			"line break":   {Authority: "10.0.0.7:1", Baggage: "a\nb"},
			"too large":    {Authority: "10.0.0.7:1", Baggage: strings.Repeat("x", 20<<10)},
		} {
			if s, _, err := client.Open(t.Context(), r); err == nil {
				t.Errorf("%s: Open succeeded", name)
				_ = s.Close()
			}
		}
		_ = client.Close()
	})
}

// TestDrainAnnouncesThenNamesTheLastStream checks the two GOAWAYs of RFC 9113 section 6.8.
func TestDrainAnnouncesThenNamesTheLastStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &hbone.Server{Handler: hold}
		attack(t, server, func(p *rawPeer) {
			_ = p.connect(1)
			synctest.Wait()
			drained := make(chan error, 1)
			go func() { drained <- server.Drain(context.Background()) }()
			synctest.Wait()
			_ = p.connect(3) // was on its way when the first GOAWAY came
			synctest.Wait()
			if got := p.statusOf(3); got != "200" {
				t.Errorf("a request beside the first GOAWAY was answered %q", got)
			}
			time.Sleep(2 * time.Second) // this peer does not answer the PING
			_ = p.connect(5)
			synctest.Wait()
			if got := p.statusOf(5); got != "" {
				t.Errorf("a request after the second GOAWAY was answered %q", got)
			}
			_ = p.WriteData(1, true, nil)
			_ = p.WriteRSTStream(3, http2.ErrCodeCancel)
			if err := <-drained; err != nil {
				t.Errorf("Drain: %v", err)
			}
			if code, told := p.ended(); !told || code != http2.ErrCodeNo {
				t.Errorf("GOAWAY %v, %v", code, told)
			}
		})
	})
}
