package h3_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"github.com/quic-go/quic-go/quicvarint"

	"github.com/tulle-mesh/tulle/internal/hbone"
	"github.com/tulle-mesh/tulle/internal/hbone/h3"
)

// quicDial opens a bare QUIC connection to a server.
func quicDial(t *testing.T, server *testServer) *quic.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	udp := listenUDP(t)
	transport := &quic.Transport{Conn: udp}
	qc, err := transport.Dial(ctx, server.addr, clientTLS(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		qc.CloseWithError(0x100, "")
		transport.Close()
		udp.Close()
	})
	return qc
}

func TestForeignClient(t *testing.T) {
	server := serve(t, h3.ServerConfig{Handler: func(ctx context.Context, r *hbone.ServerRequest) {
		if r.Method != "CONNECT" {
			r.Refuse(400)
			return
		}
		echo(ctx, r)
	}})
	client := (&http3.Transport{}).NewClientConn(quicDial(t, server))

	s, err := client.OpenRequestStream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	req := &http.Request{Method: "CONNECT", Host: "10.0.0.7:80", URL: &url.URL{Host: "10.0.0.7:80"}, Header: http.Header{}}
	if err := s.SendRequestHeader(req); err != nil {
		t.Fatal(err)
	}
	resp, err := s.ReadResponse()
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("CONNECT = %v, %v", resp, err)
	}
	s.Write([]byte("hello"))
	s.Close()
	if got, err := io.ReadAll(s); err != nil || string(got) != "hello" {
		t.Errorf("read %q, %v", got, err)
	}

	get, _ := http.NewRequest("GET", "https://server/", nil)
	resp, err = client.RoundTrip(get)
	if err != nil || resp.StatusCode != 400 {
		t.Fatalf("GET = %v, %v", resp, err)
	}
	if got, err := io.ReadAll(resp.Body); err != nil || len(got) != 0 {
		t.Errorf("read %q, %v", got, err)
	}
	resp.Body.Close()
}

func TestForeignServer(t *testing.T) { synctest.Test(t, testForeignServer) }

func testForeignServer(t *testing.T) {
	near, udp := memoryConns()
	server := &http3.Server{TLSConfig: serverTLS(), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != "CONNECT" || r.Host != "10.0.0.7:80" || len(r.Header) != 1 || r.Header.Get("Baggage") != "a=b" {
			w.WriteHeader(400)
			return
		}
		w.Header().Set("Baggage", "c=d")
		w.WriteHeader(200)
		w.(http.Flusher).Flush()
		s, err := w.(http3.HTTPStreamer).HTTPStream()
		if err != nil {
			return
		}
		io.Copy(s, s)
		s.Close()
	})}
	served := make(chan struct{})
	go func() {
		defer close(served)
		server.Serve(udp)
	}()
	defer func() { server.Close(); <-served; udp.Close() }()

	tunnel := dialFrom(t, near, udp.LocalAddr(), h3.ClientConfig{})
	s, resp, err := tunnel.Open(t.Context(), hbone.Request{Authority: "10.0.0.7:80", Baggage: "a=b"})
	if err != nil || resp.Baggage != "c=d" {
		t.Fatalf("Open = %+v, %v", resp, err)
	}
	s.Write([]byte("hello"))
	s.CloseWrite()
	if got, err := io.ReadAll(s); err != nil || string(got) != "hello" {
		t.Errorf("read %q, %v", got, err)
	}
	s.Close()
	_, _, err = tunnel.Open(t.Context(), hbone.Request{Authority: "10.0.0.9:80"})
	if status, ok := errors.AsType[*hbone.StatusError](err); !ok || status.Status != 400 {
		t.Errorf("Open = %v, want status 400", err)
	}

	// The foreign server's drain is understood too.
	begin := time.Now()
	shut := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		shut <- server.Shutdown(ctx)
	}()
	receive(t, tunnel.Done(), "end of the tunnel")
	wantGoodbye(t, begin)
	if err := receive(t, shut, "end of the drain"); err != nil {
		t.Errorf("Shutdown = %v", err)
	}
}

// wantGoodbye checks that a drained tunnel to a foreign server, which never says
// goodbye, has waited for it as long as it should.
func wantGoodbye(t *testing.T, begin time.Time) {
	t.Helper()
	if waited := time.Since(begin); waited < 10*time.Second || waited > 11*time.Second {
		t.Errorf("the tunnel ended after %v, want 10s", waited)
	}
}

// TestBreachesEndTheConnection sends what no well-behaved client sends.
func TestBreachesEndTheConnection(t *testing.T) {
	for name, tc := range map[string]struct {
		uni, bidi []byte
		want      quic.ApplicationErrorCode
	}{
		"control without settings": {uni: []byte{0x0, 0x7, 0x1, 0x0}, want: 0x10a},
		"push stream":              {uni: []byte{0x1, 0x0}, want: 0x103},
		"dynamic table":            {uni: []byte{0x2, 0x3f, 0x01}, want: 0x201},
		"data before the fields":   {bidi: []byte{0x0, 0x1, 'x'}, want: 0x105},
		"undecodable fields":       {bidi: []byte{0x1, 0x3, 0x2, 0x0, 0x80}, want: 0x200},
	} {
		t.Run(name, func(t *testing.T) {
			server := serve(t, h3.ServerConfig{Handler: echo})
			qc := quicDial(t, server)
			if tc.uni != nil {
				s, err := qc.OpenUniStream()
				if err != nil {
					t.Fatal(err)
				}
				s.Write(tc.uni)
			} else {
				s, err := qc.OpenStream()
				if err != nil {
					t.Fatal(err)
				}
				s.Write(tc.bidi)
			}
			receive(t, qc.Context().Done(), "end of the connection")
			app, ok := errors.AsType[*quic.ApplicationError](context.Cause(qc.Context()))
			if !ok || !app.Remote || app.ErrorCode != tc.want {
				t.Errorf("ended with %v, want code %#x", context.Cause(qc.Context()), tc.want)
			}
		})
	}
}

// TestMalformedRequestResetsItsStreamOnly checks that a client's mistake costs it no other stream.
func TestMalformedRequestResetsItsStreamOnly(t *testing.T) {
	server := serve(t, h3.ServerConfig{Handler: echo})
	qc := quicDial(t, server)
	s, err := qc.OpenStream()
	if err != nil {
		t.Fatal(err)
	}
	s.Write([]byte{0x1, 0x2, 0x0, 0x0}) // no fields at all
	s.SetReadDeadline(time.Now().Add(patience))
	_, err = s.Read(make([]byte, 1))
	se, ok := errors.AsType[*quic.StreamError](err)
	if !ok || !se.Remote || se.ErrorCode != 0x10e {
		t.Errorf("Read = %v, want a reset with H3_MESSAGE_ERROR", err)
	}
	if err := context.Cause(qc.Context()); err != nil {
		t.Errorf("connection ended: %v", err)
	}
}

// TestRequestsBehindGoAwayAreForAnotherTunnel has a server that names the request in its GOAWAY.
func TestRequestsBehindGoAwayAreForAnotherTunnel(t *testing.T) {
	synctest.Test(t, testRequestsBehindGoAway)
}

func testRequestsBehindGoAway(t *testing.T) {
	near, udp := memoryConns()
	transport := &quic.Transport{Conn: udp}
	listener, err := transport.Listen(serverTLS(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { transport.Close(); udp.Close() }()
	accepted := make(chan *quic.Conn, 1)
	go func() {
		if qc, err := listener.Accept(context.Background()); err == nil {
			accepted <- qc
		}
	}()
	tunnel := dialFrom(t, near, udp.LocalAddr(), h3.ClientConfig{})
	qc := receive(t, accepted, "connection")
	go func() {
		// Wait for the request, then say that it was not looked at.
		if _, err := qc.AcceptStream(context.Background()); err != nil {
			return
		}
		control, err := qc.OpenUniStream()
		if err != nil {
			return
		}
		b := []byte{0x0, 0x4, 0x0} // control stream, empty SETTINGS
		b = append(b, 0x7, 0x1)    // GOAWAY
		control.Write(quicvarint.Append(b, 0))
	}()
	begin := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, _, err := tunnel.Open(ctx, hbone.Request{Authority: "10.0.0.7:80"}); err != hbone.ErrDraining {
		t.Errorf("Open = %v, want ErrDraining", err)
	}
	receive(t, tunnel.Done(), "end of the tunnel")
	wantGoodbye(t, begin)
}
