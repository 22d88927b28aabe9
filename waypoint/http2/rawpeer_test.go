package http2_test

import (
	"bytes"
	"context"
	"net"
	"sync"
	"testing"

	xhttp2 "golang.org/x/net/http2"
	xhpack "golang.org/x/net/http2/hpack"

	"github.com/tulle-mesh/tulle/waypoint/http2"
)

// rawPeer speaks frames to a server or a client of ours, right or wrong. It keeps
// reading in the background, unless it is told to be deaf.
type rawPeer struct {
	t    testing.TB
	conn net.Conn
	*xhttp2.Framer
	wmu  sync.Mutex
	hbuf bytes.Buffer
	henc *xhpack.Encoder

	reading sync.WaitGroup
	mu      sync.Mutex
	goAway  *xhttp2.ErrCode
	resets  map[uint32]xhttp2.ErrCode
	status  map[uint32]string
	windows map[uint32]int64
	data    map[uint32]string
	ends    map[uint32]bool // END_STREAM came

	emptyData int // DATA frames without content
}

func newRawPeer(t testing.TB, conn net.Conn) *rawPeer {
	p := &rawPeer{t: t, conn: conn, Framer: xhttp2.NewFramer(conn, conn),
		resets: map[uint32]xhttp2.ErrCode{}, status: map[uint32]string{}, windows: map[uint32]int64{},
		data: map[uint32]string{}, ends: map[uint32]bool{}}
	p.AllowIllegalWrites = true
	p.ReadMetaHeaders = xhpack.NewDecoder(4096, nil)
	p.henc = xhpack.NewEncoder(&p.hbuf)
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
			case *xhttp2.GoAwayFrame:
				p.goAway = &f.ErrCode
			case *xhttp2.RSTStreamFrame:
				p.resets[f.StreamID] = f.ErrCode
			case *xhttp2.MetaHeadersFrame:
				if f.PseudoValue("status") != "" {
					p.status[f.StreamID] = f.PseudoValue("status")
				}
				if f.StreamEnded() {
					p.ends[f.StreamID] = true
				}
			case *xhttp2.DataFrame:
				p.data[f.StreamID] += string(f.Data())
				if len(f.Data()) == 0 {
					p.emptyData++
				}
				if f.StreamEnded() {
					p.ends[f.StreamID] = true
				}
			case *xhttp2.WindowUpdateFrame:
				p.windows[f.StreamID] += int64(f.Increment)
			}
			p.mu.Unlock()
		}
	})
}

// greet sends the client's preface and SETTINGS.
func (p *rawPeer) greet() {
	_, _ = p.conn.Write([]byte(xhttp2.ClientPreface))
	_ = p.WriteSettings()
}

// headers sends one header block.
func (p *rawPeer) headers(id uint32, end bool, fields ...string) error {
	return p.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: id, EndHeaders: true, EndStream: end, BlockFragment: p.block(fields...)})
}

func (p *rawPeer) block(fields ...string) []byte {
	p.hbuf.Reset()
	for i := 0; i < len(fields); i += 2 {
		_ = p.henc.WriteField(xhpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	return p.hbuf.Bytes()
}

// longHeaders sends a header block, without the end of the stream, in as many frames
// as it needs.
func (p *rawPeer) longHeaders(id uint32, fields ...string) {
	block := append([]byte(nil), p.block(fields...)...)
	n := min(len(block), 16<<10)
	_ = p.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: id, BlockFragment: block[:n], EndHeaders: n == len(block)})
	for block = block[n:]; len(block) > 0; block = block[n:] {
		n = min(len(block), 16<<10)
		_ = p.WriteContinuation(id, n == len(block), block[:n])
	}
}

// request sends a request that is well-formed, with more fields.
func (p *rawPeer) request(id uint32, end bool, more ...string) error {
	return p.headers(id, end, append([]string{":method", "POST", ":scheme", "http", ":path", "/", ":authority", "a"}, more...)...)
}

// ended waits for the end of the connection and returns the code of GOAWAY.
func (p *rawPeer) ended() (code xhttp2.ErrCode, told bool) {
	p.reading.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.goAway == nil {
		return 0, false
	}
	return *p.goAway, true
}

func (p *rawPeer) reset(id uint32) (xhttp2.ErrCode, bool) {
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
func attack(t *testing.T, server *http2.Server, f func(p *rawPeer)) {
	t.Helper()
	c, s := net.Pipe()
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(ctx, s)
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
