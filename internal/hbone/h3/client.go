package h3

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/tulle-mesh/tulle/internal/hbone"
)

// ProtocolID is the application protocol that a tls.Config must offer (RFC 9114 section 3.1).
const ProtocolID = "h3"

// ClientConfig configures a dialled tunnel. The zero value is usable.
type ClientConfig struct {
	// ExpiresAt tells from the verified TLS state when the tunnel may open no
	// further streams. Nil, or a zero time, means never.
	ExpiresAt func(tls.ConnectionState) time.Time
}

// Tunnel is the client's side of one QUIC connection. It implements hbone.Tunnel.
type Tunnel struct {
	conn
	expiresAt time.Time
	done      chan struct{}
	err       error // set before done is closed
}

var _ hbone.Tunnel = (*Tunnel)(nil)

// Dial opens a tunnel to addr over udp, which serves this one connection and is
// closed with it, or at once when Dial fails. ctx bounds the dialling only.
//
// tlsConfig must offer ProtocolID and must verify the peer itself; it must have
// no session cache, because a resumed session would skip that. No server name
// is sent when addr is an IP address and tlsConfig names none.
func Dial(ctx context.Context, udp net.PacketConn, addr net.Addr, tlsConfig *tls.Config, cfg ClientConfig) (*Tunnel, error) {
	transport := &quic.Transport{Conn: udp}
	qc, err := dial(ctx, transport, addr, tlsConfig)
	if err != nil {
		transport.Close()
		udp.Close()
		return nil, fmt.Errorf("dial %v over QUIC: %w", addr, err)
	}
	t := &Tunnel{done: make(chan struct{})}
	t.conn.init(qc, true, t.goAway)
	if cfg.ExpiresAt != nil {
		t.expiresAt = cfg.ExpiresAt(qc.ConnectionState().TLS)
	}
	if err = t.openControl(maxResponseFieldsBytes); err == nil {
		t.wg.Go(t.acceptUni)
	}
	go func() {
		<-qc.Context().Done()
		t.wg.Wait()
		transport.Close()
		udp.Close()
		t.err = t.tunnelError()
		close(t.done)
	}()
	if err != nil {
		t.Close()
		return nil, fmt.Errorf("dial %v over QUIC: %w", addr, err)
	}
	return t, nil
}

func dial(ctx context.Context, transport *quic.Transport, addr net.Addr, tlsConfig *tls.Config) (*quic.Conn, error) {
	if !slices.Contains(tlsConfig.NextProtos, ProtocolID) {
		return nil, fmt.Errorf("TLS configuration does not offer %q", ProtocolID)
	}
	if tlsConfig.ClientSessionCache != nil {
		return nil, errors.New("TLS configuration allows resumed sessions")
	}
	return transport.Dial(ctx, addr, tlsConfig, &quic.Config{
		HandshakeIdleTimeout:             handshakeTimeout / 2, // quic-go allows twice this in all
		MaxIdleTimeout:                   idleTimeout,
		KeepAlivePeriod:                  keepAlivePeriod,
		InitialStreamReceiveWindow:       initialStreamWindowBytes,
		MaxStreamReceiveWindow:           maxStreamWindowBytes,
		InitialConnectionReceiveWindow:   connWindowBytes,
		MaxConnectionReceiveWindow:       connWindowBytes,
		MaxIncomingStreams:               -1, // a server opens none (RFC 9114 section 6.1)
		MaxIncomingUniStreams:            maxUniStreams,
		EnableStreamResetPartialDelivery: true, // see responder.answer
	})
}

// Open implements hbone.Tunnel.
func (t *Tunnel) Open(ctx context.Context, r hbone.Request) (hbone.Stream, hbone.Response, error) {
	s, resp, err := t.open(ctx, r)
	if err != nil {
		return nil, hbone.Response{}, err
	}
	return s, resp, nil
}

func (t *Tunnel) open(ctx context.Context, r hbone.Request) (*stream, hbone.Response, error) {
	if err := r.Validate(); err != nil {
		return nil, hbone.Response{}, err
	}
	request, err := appendRequest(nil, r)
	if err != nil {
		return nil, hbone.Response{}, err
	}
	if t.expired() {
		return nil, hbone.Response{}, hbone.ErrDraining
	}
	qs, err := t.qc.OpenStream()
	if err != nil {
		if _, full := errors.AsType[*quic.StreamLimitReachedError](err); full {
			return nil, hbone.Response{}, hbone.ErrTooManyStreams
		}
		return nil, hbone.Response{}, toTunnelError(err)
	}
	s := newStream(&t.conn, qs)
	if !t.add(s) {
		s.reset(codeRequestCancelled)
		return nil, hbone.Response{}, hbone.ErrDraining
	}
	stop := context.AfterFunc(ctx, func() { s.reset(codeRequestCancelled) })
	resp, err := s.request(request)
	if !stop() {
		s.reset(codeRequestCancelled)
		return nil, hbone.Response{}, context.Cause(ctx)
	}
	if err != nil {
		s.fail(err)
		s.ended(err)
		return nil, hbone.Response{}, t.openError(s, err)
	}
	if resp.Status != 200 {
		s.Close()
		return nil, hbone.Response{}, &hbone.StatusError{Status: resp.Status}
	}
	return s, resp, nil
}

// openError tells what err, met while opening s, means to the caller.
func (t *Tunnel) openError(s *stream, err error) error {
	if s.unprocessed.Load() {
		return hbone.ErrDraining
	}
	if se, ok := errors.AsType[*quic.StreamError](err); ok {
		if se.Remote && code(se.ErrorCode) == codeRequestRejected {
			// The server did nothing with it (RFC 9114 section 4.1.1), so that another tunnel
			// may. Its GOAWAY is perhaps still on the way.
			t.Drain()
			return hbone.ErrDraining
		}
		return toStreamError(err)
	}
	if _, ok := errors.AsType[*protocolError](err); ok {
		return toStreamError(err)
	}
	return toTunnelError(err)
}

// request sends the HEADERS frame and waits for the final answer.
func (s *stream) request(frame []byte) (hbone.Response, error) {
	if _, err := s.qs.Write(frame); err != nil {
		if se, ok := errors.AsType[*quic.StreamError](err); !ok || code(se.ErrorCode) != codeNoError {
			return hbone.Response{}, err
		}
		// The server answered without wanting the rest.
	}
	for range maxInterimResponses + 1 {
		block, err := readFieldSection(s.qs, maxResponseFieldsBytes)
		if err != nil {
			return hbone.Response{}, err
		}
		resp, err := parseResponse(block)
		if errors.Is(err, errFieldsTooLarge) {
			return resp, streamError(codeExcessiveLoad, "answer with more than %d bytes of fields", maxResponseFieldsBytes)
		}
		if err != nil || resp.Status >= 200 {
			return resp, err
		}
	}
	return hbone.Response{}, streamError(codeExcessiveLoad, "more than %d interim answers", maxInterimResponses)
}

// goAway handles the server's GOAWAY.
func (t *Tunnel) goAway(id uint64) error {
	if id%4 != 0 {
		return connError(codeID, "GOAWAY with id %d, which no request has", id)
	}
	t.mu.Lock()
	if t.excluded != nil && id > *t.excluded {
		t.mu.Unlock()
		return connError(codeID, "GOAWAY with id %d after %d", id, *t.excluded)
	}
	t.excluded = &id
	var unprocessed []*stream
	for streamID, s := range t.streams {
		if uint64(streamID) >= id {
			unprocessed = append(unprocessed, s)
		}
	}
	t.mu.Unlock()
	t.Drain()
	for _, s := range unprocessed {
		s.unprocessed.Store(true)
		s.reset(codeRequestCancelled)
	}
	return nil
}

func (t *Tunnel) expired() bool {
	return !t.expiresAt.IsZero() && !time.Now().Before(t.expiresAt)
}

// Streams implements hbone.Tunnel.
func (t *Tunnel) Streams() int { return t.streamCount() }

// Usable implements hbone.Tunnel. Whether the server would allow one more
// stream shows only in Open, because QUIC counts the streams ever opened.
func (t *Tunnel) Usable() bool {
	t.mu.Lock()
	draining := t.draining
	t.mu.Unlock()
	return !draining && !t.expired() && t.qc.Context().Err() == nil
}

// ExpiresAt implements hbone.Tunnel.
func (t *Tunnel) ExpiresAt() time.Time { return t.expiresAt }

// Done implements hbone.Tunnel.
func (t *Tunnel) Done() <-chan struct{} { return t.done }

// Err implements hbone.Tunnel.
func (t *Tunnel) Err() error {
	select {
	case <-t.done:
		return t.err
	default:
		return nil
	}
}

// Drain implements hbone.Tunnel.
func (t *Tunnel) Drain() {
	if t.beginDrain() {
		go t.goodbye()
	}
}

// goodbye waits for the last stream and then leaves it to the server to close:
// our GOAWAY tells that everything for us has arrived, and the server knows when
// its applications have taken everything from us.
func (t *Tunnel) goodbye() {
	if !t.untilIdle() {
		return
	}
	t.sendGoAway(0) // a client's names a push, of which there are none
	t.untilEnd(nil)
	t.close(codeNoError, "")
}

// Close implements hbone.Tunnel. It waits until the socket is closed.
func (t *Tunnel) Close() error {
	t.qc.CloseWithError(quic.ApplicationErrorCode(codeNoError), "")
	<-t.done
	return nil
}
