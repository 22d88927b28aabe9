package hbone_test

import (
	"bytes"
	"context"
	"net"
	"sync"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/tulle-mesh/tulle/internal/hbone"
)

// rawPeer speaks frames to a server or a client of ours, right or wrong. It keeps
// reading in the background, unless it is told to be deaf.
type rawPeer struct {
	t    testing.TB
	conn net.Conn
	*http2.Framer
	wmu  sync.Mutex
	hbuf bytes.Buffer
	henc *hpack.Encoder

	reading sync.WaitGroup
	mu      sync.Mutex
	frames  []string // summaries: "RST_STREAM 1 7"
	goAway  *http2.ErrCode
	resets  map[uint32]http2.ErrCode
	status  map[uint32]string
	windows map[uint32]int64
}

func newRawPeer(t testing.TB, conn net.Conn) *rawPeer {
	p := &rawPeer{t: t, conn: conn, Framer: http2.NewFramer(conn, conn),
		resets: map[uint32]http2.ErrCode{}, status: map[uint32]string{}, windows: map[uint32]int64{}}
	p.AllowIllegalWrites = true
	p.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	p.henc = hpack.NewEncoder(&p.hbuf)
	return p
}

// listen reads until the connection ends, noting what comes.
func (p *rawPeer) listen() {
	p.reading.Go(func() {
		for {
			f, err := p.ReadFrame()
			if err != nil {
				return
			}
			p.mu.Lock()
			switch f := f.(type) {
			case *http2.GoAwayFrame:
				p.goAway = &f.ErrCode
			case *http2.RSTStreamFrame:
				p.resets[f.StreamID] = f.ErrCode
			case *http2.MetaHeadersFrame:
				p.status[f.StreamID] = f.PseudoValue("status")
			case *http2.WindowUpdateFrame:
				p.windows[f.StreamID] += int64(f.Increment)
			}
			p.mu.Unlock()
		}
	})
}

// greet sends the client's preface and SETTINGS.
func (p *rawPeer) greet() {
	_, _ = p.conn.Write([]byte(http2.ClientPreface))
	_ = p.WriteSettings()
}

// headers sends one header block.
func (p *rawPeer) headers(id uint32, end bool, fields ...string) error {
	return p.WriteHeaders(http2.HeadersFrameParam{StreamID: id, EndHeaders: true, EndStream: end, BlockFragment: p.block(fields...)})
}

func (p *rawPeer) block(fields ...string) []byte {
	p.hbuf.Reset()
	for i := 0; i < len(fields); i += 2 {
		_ = p.henc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	return p.hbuf.Bytes()
}

func (p *rawPeer) connect(id uint32) error {
	return p.headers(id, false, ":method", "CONNECT", ":authority", "10.0.0.7:8080")
}

// ended waits for the end of the connection and returns the code of GOAWAY.
func (p *rawPeer) ended() (code http2.ErrCode, told bool) {
	p.reading.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.goAway == nil {
		return 0, false
	}
	return *p.goAway, true
}

func (p *rawPeer) reset(id uint32) (http2.ErrCode, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	code, ok := p.resets[id]
	return code, ok
}

func (p *rawPeer) statusOf(id uint32) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.status[id]
}

// attack runs server on a connection in memory and gives the other end to f, which
// is greeted and listened to; afterwards everything must end.
func attack(t *testing.T, server *hbone.Server, f func(p *rawPeer)) {
	t.Helper()
	c, s := net.Pipe()
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.ServeConn(ctx, s, nil)
	}()
	p := newRawPeer(t, c)
	p.listen()
	p.greet()
	f(p)
	cancel()
	_ = c.Close()
	<-served
	p.reading.Wait()
}
