package listener_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"go.uber.org/goleak"
	"go.uber.org/zap/zaptest"

	"github.com/tulle-mesh/tulle/certs/forge"
	"github.com/tulle-mesh/tulle/internal/handshake"
	"github.com/tulle-mesh/tulle/internal/lifecycle"
	"github.com/tulle-mesh/tulle/internal/mtls"
	"github.com/tulle-mesh/tulle/waypoint/listener"
	"github.com/tulle-mesh/tulle/waypoint/tunnel"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	patience = 20 * time.Second

	waypoint = "spiffe://cluster.local/ns/shop/sa/waypoint"
	client   = "spiffe://cluster.local/ns/shop/sa/client"
)

// ready is a certificate that is there.
type ready struct{}

func (ready) Ready(context.Context) error { return nil }

// served is a waypoint's listener, on an address that this process has for itself.
type served struct {
	t     *testing.T
	host  netip.Addr
	ca    *forge.Authority
	drain *lifecycle.Drain
	*listener.Listener
}

func serve(t *testing.T, handler listener.Handler) *served {
	t.Helper()
	pid := os.Getpid()
	s := &served{
		t: t, host: netip.AddrFrom4([4]byte{127, 1 + byte(pid>>16&0x7f), byte(pid >> 8), byte(pid)}),
		ca: forge.Root(t, "cluster.local").Intermediate(t), drain: lifecycle.NewDrain(),
	}
	s.Listener = listener.New(listener.Config{
		Gate:    handshake.NewGate(handshake.Config{TLS: mtls.Server(s.ca.Leaf(t, waypoint), s.ca.Bundle()), Certificate: ready{}}),
		Handler: handler, Drain: s.drain, Logger: zaptest.NewLogger(t),
	})
	ln, err := net.Listen("tcp", netip.AddrPortFrom(s.host, 15008).String())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s
}

// dialer opens tunnels as somebody.
func (s *served) dialer(svid x509svid.Source, bundles x509bundle.Source) *tunnel.Dialer {
	d := tunnel.NewDialer(tunnel.Config{SVID: svid, Bundles: bundles, ConnectTimeout: patience})
	s.t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = d.Drain(ctx)
	})
	return d
}

func (s *served) dial(d *tunnel.Dialer, port uint16) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	return d.Dial(ctx, tunnel.Target{Addr: netip.AddrPortFrom(s.host, port), Identity: spiffeid.RequireFromString(waypoint), Workload: "w"})
}

func TestConnectionsTellWhoAsksAndForWhat(t *testing.T) {
	seen := make(chan *listener.Connection, 1)
	s := serve(t, func(_ context.Context, c *listener.Connection) {
		seen <- c
		conn, err := c.Accept("")
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		_, _ = io.Copy(conn, conn)
	})
	conn, err := s.dial(s.dialer(s.ca.Leaf(t, client), s.ca.Bundle()), 8080)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	c := <-seen
	if c.Peer.String() != client || c.Target != fmt.Sprintf("%v:8080", s.host) || !c.Source.Addr().IsLoopback() || c.Tunnel.Port() != 15008 || c.Received.IsZero() {
		t.Errorf("%+v", c)
	}
	if _, err := io.WriteString(conn, "both ways"); err != nil {
		t.Fatal(err)
	}
	if err := conn.(*tunnel.Conn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(conn); string(got) != "both ways" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

func TestRefusalsHaveTheirStatus(t *testing.T) {
	s := serve(t, func(_ context.Context, c *listener.Connection) {
		if c.Request.Authority != "" && c.Target[len(c.Target)-3:] == "401" {
			c.Refuse(401)
		} // others are not answered, which is 503
	})
	d := s.dialer(s.ca.Leaf(t, client), s.ca.Bundle())
	for port, want := range map[uint16]int{401: 401, 503: 503} {
		_, err := s.dial(d, port)
		if status, ok := tunnel.Refused(err); !ok || status != want {
			t.Errorf("port %d: %v", port, err)
		}
	}
}

func TestStrangersGetNoTunnel(t *testing.T) {
	s := serve(t, func(context.Context, *listener.Connection) { t.Error("a stranger's connection came through") })
	foreign := forge.Root(t, "elsewhere.example").Intermediate(t)
	same := forge.Root(t, "cluster.local").Intermediate(t)
	for name, d := range map[string]*tunnel.Dialer{
		"another trust domain": s.dialer(foreign.Leaf(t, "spiffe://elsewhere.example/ns/shop/sa/client"), s.ca.Bundle()),
		"another root":         s.dialer(same.Leaf(t, client), s.ca.Bundle()),
		"expired":              s.dialer(s.ca.Leaf(t, client, forge.Validity(time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour))), s.ca.Bundle()),
	} {
		if conn, err := s.dial(d, 80); err == nil {
			// TLS 1.3's client learns of a refusal when it reads.
			if _, err = conn.Read(make([]byte, 1)); err == nil {
				t.Errorf("%s: has a tunnel", name)
			}
			_ = conn.Close()
		}
	}
	// A waypoint that is another than the client expects.
	d := s.dialer(s.ca.Leaf(t, client), s.ca.Bundle())
	_, err := d.Dial(t.Context(), tunnel.Target{
		Addr: netip.AddrPortFrom(s.host, 80), Identity: spiffeid.RequireFromString("spiffe://cluster.local/ns/shop/sa/other"), Workload: "w",
	})
	var peer *mtls.PeerError
	if !errors.As(err, &peer) {
		t.Errorf("another waypoint: %v", err)
	}
}

// What is under way at a drain ends in its own time; nothing new begins.
func TestDrainsInOrder(t *testing.T) {
	accepted, finish := make(chan struct{}), make(chan struct{})
	s := serve(t, func(_ context.Context, c *listener.Connection) {
		conn, err := c.Accept("")
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		accepted <- struct{}{}
		<-finish
		if _, err := io.WriteString(conn, "finished"); err != nil {
			t.Error(err)
		}
		// Whole only when the client has said its last word, too: a reset would overtake it.
		_ = conn.(*tunnel.Conn).CloseWrite()
		_, _ = conn.Read(make([]byte, 1))
	})
	d := s.dialer(s.ca.Leaf(t, client), s.ca.Bundle())
	conn, err := s.dial(d, 80)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	<-accepted
	drained := make(chan struct{})
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	go func() {
		defer close(drained)
		s.drain.Begin()
		s.Drain(ctx)
	}()
	<-s.drain.Draining()
	if late, err := s.dial(d, 81); err == nil {
		t.Error("a connection was taken in the drain")
		_ = late.Close()
	}
	select {
	case <-drained:
		t.Error("the drain did not wait")
	default:
	}
	close(finish)
	if got, err := io.ReadAll(conn); string(got) != "finished" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	_ = conn.Close()
	<-drained
	if s.drain.Held() != 0 {
		t.Errorf("%d are held", s.drain.Held())
	}
}

func TestADrainsDeadlineBreaksWhatIsLeft(t *testing.T) {
	broken := make(chan struct{})
	s := serve(t, func(ctx context.Context, c *listener.Connection) {
		conn, err := c.Accept("")
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		<-ctx.Done()
		close(broken)
	})
	conn, err := s.dial(s.dialer(s.ca.Leaf(t, client), s.ca.Bundle()), 80)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	s.Drain(ctx)
	select {
	case <-broken:
	case <-time.After(patience):
		t.Fatal("the connection goes on")
	}
	if _, err := io.ReadAll(conn); err == nil {
		t.Error("what was broken off passes for an end")
	}
}

// A deadline that has passed ends the stream for good, and says so.
func TestDeadlinesOfStreams(t *testing.T) {
	s := serve(t, func(ctx context.Context, c *listener.Connection) {
		if conn, err := c.Accept(""); err == nil {
			<-ctx.Done()
			_ = conn.Close()
		}
	})
	conn, err := s.dial(s.dialer(s.ca.Leaf(t, client), s.ca.Bundle()), 80)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetReadDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%v", err)
	}
	if _, err := conn.Write([]byte("x")); err == nil {
		t.Error("the stream goes on")
	}
}

// A peer that has said all and takes no more: Close ends the Write that waits for it, and
// tells the peer that it has not got all.
func TestCloseEndsAWriteThatWaits(t *testing.T) {
	ended := make(chan error, 1)
	written := make(chan struct{})
	s := serve(t, func(ctx context.Context, c *listener.Connection) {
		conn, err := c.Accept("")
		if err != nil {
			ended <- err
			return
		}
		defer conn.Close()
		if err := conn.(*tunnel.Conn).CloseWrite(); err != nil {
			t.Error(err)
		}
		<-written
		_, err = io.Copy(io.Discard, conn)
		ended <- err
	})
	conn, err := s.dial(s.dialer(s.ca.Leaf(t, client), s.ca.Bundle()), 80)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 1)); err != io.EOF {
		t.Fatal(err)
	}
	var total atomic.Int64
	go func() {
		defer close(written)
		for content, err := make([]byte, 32<<10), error(nil); err == nil; {
			var n int
			n, err = conn.Write(content)
			total.Add(int64(n))
		}
	}()
	for last, still := int64(-1), 0; still < 10; still++ {
		time.Sleep(5 * time.Millisecond)
		if now := total.Load(); now != last {
			last, still = now, 0
		}
	}
	_ = conn.Close()
	select {
	case <-written:
	case <-time.After(patience):
		t.Fatal("the Write still waits")
	}
	if err := <-ended; err == nil {
		t.Error("the peer takes it for the whole")
	}
}
