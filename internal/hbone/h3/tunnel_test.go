package h3_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/internal/hbone"
	"github.com/tulle-mesh/tulle/internal/hbone/h3"
)

func TestRequestAndAnswerCarryWhatHBONEKnows(t *testing.T) {
	want := hbone.Request{
		Authority:        "[fd00::7]:8080",
		Baggage:          "k8s.namespace.name=shop,service.name=web",
		Forwarded:        `for="10.0.0.1:4711";host=web.shop.svc.cluster.local`,
		Traceparent:      "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00",
		ForwardedNetwork: "west",
	}
	got := make(chan *hbone.ServerRequest, 1)
	server := serve(t, h3.ServerConfig{
		Handler: func(_ context.Context, r *hbone.ServerRequest) {
			got <- r
			if s, err := r.Accept(hbone.Response{Baggage: "service.name=api"}); err == nil {
				s.Close()
			}
		},
		Attach: func(cs tls.ConnectionState, _ hbone.Conn) (any, time.Time, error) {
			return cs.PeerCertificates[0].Subject.CommonName, time.Time{}, nil
		},
	})
	tunnel := dial(t, server.addr, h3.ClientConfig{})
	s, resp, err := tunnel.Open(t.Context(), want)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if resp != (hbone.Response{Status: 200, Baggage: "service.name=api"}) {
		t.Errorf("answer is %+v", resp)
	}
	r := receive(t, got, "request")
	if r.Request != want || r.Method != "CONNECT" {
		t.Errorf("request is %s %+v, want %+v", r.Method, r.Request, want)
	}
	if r.Conn.Value != "client" || r.Conn.Local.String() != server.addr.String() || r.Conn.Remote.Addr() != netip.MustParseAddr("127.0.0.1") {
		t.Errorf("connection is %+v", r.Conn)
	}
}

func TestRefusalBecomesStatusErrorAndLeavesTheTunnelUsable(t *testing.T) {
	server := serve(t, h3.ServerConfig{Handler: func(ctx context.Context, r *hbone.ServerRequest) {
		if r.Authority == "10.0.0.9:1" {
			r.Refuse(401)
			if _, err := r.Accept(hbone.Response{}); err == nil {
				t.Error("Accept after Refuse succeeded")
			}
			return
		}
		echo(ctx, r)
	}})
	tunnel := dial(t, server.addr, h3.ClientConfig{})
	for range 3 {
		_, _, err := tunnel.Open(t.Context(), hbone.Request{Authority: "10.0.0.9:1"})
		if status, ok := errors.AsType[*hbone.StatusError](err); !ok || status.Status != 401 {
			t.Fatalf("Open = %v, want status 401", err)
		}
	}
	if n := tunnel.Streams(); n != 0 {
		t.Errorf("%d streams after refusals", n)
	}
	open(t, tunnel)
}

func TestBytesAndHalfClose(t *testing.T) {
	server := serve(t, h3.ServerConfig{Handler: echo})
	tunnel := dial(t, server.addr, h3.ClientConfig{})
	s := open(t, tunnel)
	sent := bytes.Repeat([]byte("0123456789abcdef"), 200_000) // beyond every window
	go func() {
		s.Write(sent)
		s.CloseWrite()
	}()
	got, err := io.ReadAll(s)
	if err != nil || !bytes.Equal(got, sent) {
		t.Fatalf("read %d bytes of %d, error %v", len(got), len(sent), err)
	}
	if n := tunnel.Streams(); n != 0 {
		t.Errorf("%d streams after both halves ended", n)
	}
}

func TestResetReachesThePeerWithItsCode(t *testing.T) {
	for _, code := range []hbone.ErrCode{
		hbone.CodeNo, hbone.CodeProtocol, hbone.CodeInternal, hbone.CodeRefusedStream,
		hbone.CodeCancel, hbone.CodeConnect, hbone.CodeEnhanceCalm,
	} {
		failed := make(chan error, 1)
		server := serve(t, h3.ServerConfig{Handler: func(_ context.Context, r *hbone.ServerRequest) {
			s, err := r.Accept(hbone.Response{})
			if err != nil {
				failed <- err
				return
			}
			_, err = io.Copy(io.Discard, s)
			failed <- err
			if _, err := s.Write([]byte("late")); err == nil {
				t.Error("Write after a reset by the peer succeeded")
			}
		}})
		s := open(t, dial(t, server.addr, h3.ClientConfig{}))
		s.Reset(code)
		s.Reset(hbone.CodeInternal) // has no effect
		err := receive(t, failed, "reset")
		se, ok := errors.AsType[*hbone.StreamError](err)
		if !ok || !se.Remote || se.Code != code {
			t.Errorf("peer saw %v, want reset by peer with code %#x", err, code)
		}
		if _, err := s.Read(make([]byte, 1)); err == nil || err == io.EOF {
			t.Errorf("Read after Reset = %v", err)
		}
		server.stop()
	}
}

func TestOpenEndsWithItsContext(t *testing.T) {
	asked, release := make(chan struct{}), make(chan struct{})
	reset := make(chan error, 1)
	server := serve(t, h3.ServerConfig{Handler: func(_ context.Context, r *hbone.ServerRequest) {
		close(asked)
		<-release
		s, err := r.Accept(hbone.Response{})
		if err == nil {
			_, err = io.Copy(io.Discard, s)
			s.Close()
		}
		reset <- err
	}})
	tunnel := dial(t, server.addr, h3.ClientConfig{})
	ctx, cancel := context.WithCancelCause(t.Context())
	gaveUp := errors.New("gave up")
	go func() { <-asked; cancel(gaveUp) }()
	_, _, err := tunnel.Open(ctx, hbone.Request{Authority: "10.0.0.7:80"})
	if err != gaveUp {
		t.Errorf("Open = %v, want the cause of its context", err)
	}
	if n := tunnel.Streams(); n != 0 {
		t.Errorf("%d streams", n)
	}
	close(release)
	if err := receive(t, reset, "end of the handler"); err == nil {
		t.Error("the server did not learn of it")
	}
}

func TestTooManyStreams(t *testing.T) {
	server := serve(t, h3.ServerConfig{Handler: echo, MaxStreams: 3})
	tunnel := dial(t, server.addr, h3.ClientConfig{})
	var streams []hbone.Stream
	for range 3 {
		streams = append(streams, open(t, tunnel))
	}
	_, _, err := tunnel.Open(t.Context(), hbone.Request{Authority: "10.0.0.7:80"})
	if err != hbone.ErrTooManyStreams {
		t.Fatalf("Open beyond the limit = %v", err)
	}
	streams[0].CloseWrite()
	if _, err := io.Copy(io.Discard, streams[0]); err != nil {
		t.Fatal(err)
	}
	// The credit comes when the server released the stream.
	deadline := time.Now().Add(patience)
	for {
		s, _, err := tunnel.Open(t.Context(), hbone.Request{Authority: "10.0.0.7:80"})
		if err == nil {
			s.Close()
			break
		}
		if err != hbone.ErrTooManyStreams || time.Now().After(deadline) {
			t.Fatalf("Open after a stream ended = %v", err)
		}
		time.Sleep(time.Millisecond)
	}
}

func TestServerDrainLetsStreamsEnd(t *testing.T) {
	server := serve(t, h3.ServerConfig{Handler: echo})
	tunnel := dial(t, server.addr, h3.ClientConfig{})
	s := open(t, tunnel)
	drained := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		drained <- server.Drain(ctx)
	}()
	for deadline := time.Now().Add(patience); tunnel.Usable(); {
		if time.Now().After(deadline) {
			t.Fatal("GOAWAY did not arrive")
		}
		time.Sleep(time.Millisecond)
	}
	if _, _, err := tunnel.Open(t.Context(), hbone.Request{Authority: "10.0.0.7:80"}); err != hbone.ErrDraining {
		t.Errorf("Open on a draining tunnel = %v", err)
	}
	sent := bytes.Repeat([]byte("x"), 1<<20)
	go func() {
		s.Write(sent)
		s.CloseWrite()
	}()
	got, err := io.ReadAll(s)
	if err != nil || len(got) != len(sent) {
		t.Fatalf("read %d bytes, error %v", len(got), err)
	}
	if err := receive(t, drained, "end of the drain"); err != nil {
		t.Errorf("Drain = %v", err)
	}
	<-tunnel.Done()
	te, ok := errors.AsType[*hbone.TunnelError](tunnel.Err())
	if !ok || te.Code != hbone.CodeNo {
		t.Errorf("tunnel ended with %v", tunnel.Err())
	}
}

func TestServerDrainBreaksStreamsAtItsDeadline(t *testing.T) {
	server := serve(t, h3.ServerConfig{Handler: echo})
	tunnel := dial(t, server.addr, h3.ClientConfig{})
	s := open(t, tunnel)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := server.Drain(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Drain = %v", err)
	}
	_, err := s.Read(make([]byte, 1))
	if _, ok := errors.AsType[*hbone.StreamError](err); !ok {
		t.Errorf("Read = %v, want a stream error", err)
	}
	receive(t, tunnel.Done(), "end of the tunnel")
}

func TestClientDrainClosesAfterTheLastStream(t *testing.T) {
	server := serve(t, h3.ServerConfig{Handler: echo})
	tunnel := dial(t, server.addr, h3.ClientConfig{})
	s := open(t, tunnel)
	tunnel.Drain()
	if tunnel.Usable() {
		t.Error("usable while draining")
	}
	s.Write([]byte("last words"))
	s.CloseWrite()
	if got, err := io.ReadAll(s); err != nil || string(got) != "last words" {
		t.Fatalf("read %q, %v", got, err)
	}
	receive(t, tunnel.Done(), "end of the tunnel")
}

func TestDrainWithoutStreamsClosesAtOnce(t *testing.T) {
	server := serve(t, h3.ServerConfig{Handler: echo})
	tunnel := dial(t, server.addr, h3.ClientConfig{})
	tunnel.Drain()
	receive(t, tunnel.Done(), "end of the tunnel")
}

func TestExpiredTunnelOpensNoStream(t *testing.T) {
	server := serve(t, h3.ServerConfig{Handler: echo})
	expired := time.Now().Add(-time.Second)
	tunnel := dial(t, server.addr, h3.ClientConfig{ExpiresAt: func(tls.ConnectionState) time.Time { return expired }})
	if tunnel.Usable() || !tunnel.ExpiresAt().Equal(expired) {
		t.Errorf("usable %v, expires %v", tunnel.Usable(), tunnel.ExpiresAt())
	}
	if _, _, err := tunnel.Open(t.Context(), hbone.Request{Authority: "10.0.0.7:80"}); err != hbone.ErrDraining {
		t.Errorf("Open = %v", err)
	}
}

func TestServerTakesNoStreamAfterTheClientExpired(t *testing.T) {
	server := serve(t, h3.ServerConfig{
		Handler: echo,
		Attach: func(tls.ConnectionState, hbone.Conn) (any, time.Time, error) {
			return nil, time.Now().Add(-time.Second), nil
		},
	})
	tunnel := dial(t, server.addr, h3.ClientConfig{})
	receive(t, tunnel.Done(), "end of the tunnel")
}

func TestAttachRefusesAConnection(t *testing.T) {
	server := serve(t, h3.ServerConfig{
		Handler: echo,
		Attach: func(tls.ConnectionState, hbone.Conn) (any, time.Time, error) {
			return nil, time.Time{}, errors.New("stranger")
		},
	})
	tunnel := dial(t, server.addr, h3.ClientConfig{})
	receive(t, tunnel.Done(), "end of the tunnel")
	if _, _, err := tunnel.Open(t.Context(), hbone.Request{Authority: "10.0.0.7:80"}); err == nil {
		t.Error("Open succeeded")
	} else if strings.Contains(err.Error(), "stranger") {
		t.Errorf("the reason went to the peer: %v", err)
	}
}

func TestPeerWithoutTrustedCertificateIsRefused(t *testing.T) {
	server := serve(t, h3.ServerConfig{Handler: func(context.Context, *hbone.ServerRequest) { t.Error("request came through") }})
	for name, certs := range map[string][]tls.Certificate{
		"none": nil, "foreign": {newAuthority("other root").issue("client")},
	} {
		cfg := clientTLS()
		cfg.Certificates = certs
		tunnel, err := h3.Dial(t.Context(), listenUDP(t), server.addr, cfg, h3.ClientConfig{})
		if err == nil {
			// With TLS 1.3 the client is done before the server looked at its certificate.
			_, _, err = tunnel.Open(t.Context(), hbone.Request{Authority: "10.0.0.7:80"})
			if _, ok := errors.AsType[*hbone.TunnelError](err); !ok {
				t.Errorf("%s: Open = %v, want a tunnel error", name, err)
			}
			tunnel.Close()
		}
	}
}

func TestClientRefusesAForeignServer(t *testing.T) {
	server := serve(t, h3.ServerConfig{Handler: echo})
	cfg := clientTLS()
	cfg.RootCAs = newAuthority("other root").pool
	if _, err := h3.Dial(t.Context(), listenUDP(t), server.addr, cfg, h3.ClientConfig{}); err == nil {
		t.Fatal("Dial succeeded")
	}
}

func TestResumableConfigurationsAreRefused(t *testing.T) {
	cfg := clientTLS()
	cfg.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	if _, err := h3.Dial(t.Context(), listenUDP(t), &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 9}, cfg, h3.ClientConfig{}); err == nil {
		t.Error("Dial with a session cache succeeded")
	}
	serverCfg := serverTLS()
	serverCfg.SessionTicketsDisabled = false
	if err := h3.NewServer(h3.ServerConfig{Handler: echo}).Serve(t.Context(), listenUDP(t), serverCfg); err == nil {
		t.Error("Serve with session tickets succeeded")
	}
}

func TestDialEndsWithItsContextAndClosesTheSocket(t *testing.T) {
	silent := listenUDP(t)
	defer silent.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	udp := listenUDP(t)
	if _, err := h3.Dial(ctx, udp, silent.LocalAddr(), clientTLS(), h3.ClientConfig{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Dial = %v", err)
	}
	if _, err := udp.WriteTo([]byte{0}, silent.LocalAddr()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("socket after Dial failed: %v", err)
	}
}

func TestHandlerThatDoesNotAnswerResets(t *testing.T) {
	server := serve(t, h3.ServerConfig{Handler: func(context.Context, *hbone.ServerRequest) {}})
	tunnel := dial(t, server.addr, h3.ClientConfig{})
	_, _, err := tunnel.Open(t.Context(), hbone.Request{Authority: "10.0.0.7:80"})
	se, ok := errors.AsType[*hbone.StreamError](err)
	if !ok || se.Code != hbone.CodeInternal {
		t.Errorf("Open = %v", err)
	}
}

func TestMaxConns(t *testing.T) {
	server := serve(t, h3.ServerConfig{Handler: echo, MaxConns: 1})
	first := dial(t, server.addr, h3.ClientConfig{})
	open(t, first)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if second, err := h3.Dial(ctx, listenUDP(t), server.addr, clientTLS(), h3.ClientConfig{}); err == nil {
		second.Close()
		t.Error("Dial beyond the limit succeeded")
	}
	open(t, first)
}

func TestStalledStreamsDoNotHoldTheOthers(t *testing.T) {
	release := make(chan struct{})
	server := serve(t, h3.ServerConfig{Handler: func(ctx context.Context, r *hbone.ServerRequest) {
		if r.Authority == "stalled:1" {
			s, err := r.Accept(hbone.Response{})
			if err == nil {
				<-release
				s.Close()
			}
			return
		}
		echo(ctx, r)
	}})
	defer close(release)
	tunnel := dial(t, server.addr, h3.ClientConfig{})
	for range 20 {
		s, _, err := tunnel.Open(t.Context(), hbone.Request{Authority: "stalled:1"})
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			s.Write(make([]byte, 4<<20)) // blocks until the test ends
			s.Close()
		}()
	}
	s := open(t, tunnel)
	sent := bytes.Repeat([]byte("y"), 8<<20)
	go func() {
		s.Write(sent)
		s.CloseWrite()
	}()
	got, err := io.ReadAll(s)
	if err != nil || len(got) != len(sent) {
		t.Fatalf("read %d bytes of %d, error %v", len(got), len(sent), err)
	}
}
