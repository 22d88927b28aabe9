package http2

import (
	"context"
	"errors"
	"net/http"

	"github.com/tulle-mesh/tulle/waypoint/http2/hpack"
	"github.com/tulle-mesh/tulle/waypoint/message"
)

// clientExchange is one request and its response. It implements
// message.ClientExchange. All that a usual response needs lies in this one piece of
// memory, but for the text of its head.
type clientExchange struct {
	stream
	head    bool // the request is a HEAD
	connect bool // the request is a CONNECT, extended or not
	upgrade bool // the request is an extended CONNECT

	// Guarded by rmu; bare and final do not change once Response has returned final.
	interim   []*message.Response
	interims  int
	hasFinal  bool
	finalSeen bool
	bare      bool // END_STREAM came with final
	final     message.Response
	fields    [16]message.Field // what final.Header usually lies in
}

// Write implements message.ClientExchange.
func (q *clientExchange) Write(p []byte) (int, error) { return q.write(p) }

// Flush implements message.ClientExchange.
func (q *clientExchange) Flush() error { return q.flush() }

// CloseWrite implements message.ClientExchange.
func (q *clientExchange) CloseWrite(trailer message.Header) error {
	err := q.closeWrite(trailer)
	switch {
	case errors.Is(err, errEnded):
		return nil // Open said so already
	case errors.Is(err, errTooShort), errors.Is(err, errBadField), errors.Is(err, errHeadTooLarge):
		q.reset(codeInternal, err)
	}
	return err
}

// Response implements message.ClientExchange. ctx bounds this call.
func (q *clientExchange) Response(ctx context.Context) (*message.Response, error) {
	c := q.c
	c.mu.Lock()
	q.putOff = 0
	c.kick()
	c.mu.Unlock()
	q.rmu.Lock()
	defer q.rmu.Unlock()
	for {
		switch {
		case len(q.interim) > 0:
			r := q.interim[0]
			q.interim = q.interim[1:]
			return r, nil
		case q.finalSeen:
			return nil, errDone
		case q.hasFinal:
			q.finalSeen = true
			return &q.final, nil
		case q.rerr != nil:
			return nil, q.rerr
		}
		if err := q.awaitReceive(ctx); err != nil {
			return nil, err
		}
	}
}

// Body implements message.ClientExchange. It is message.NoBody when the head was known
// to be all before Response returned it.
func (q *clientExchange) Body() message.Body {
	if q.bare {
		return message.NoBody
	}
	return (*responseBody)(q)
}

// responseBody is the content of a response.
type responseBody clientExchange

// Read implements message.Body. The last octets may come together with io.EOF.
func (b *responseBody) Read(p []byte) (int, error) { return (*clientExchange)(b).read(p) }

// Buffered returns how many octets Read returns without waiting.
func (b *responseBody) Buffered() int { return (*clientExchange)(b).buffered() }

// Trailer implements message.Body.
func (b *responseBody) Trailer() message.Header { return (*clientExchange)(b).receivedTrailer() }

// Stream implements message.ClientExchange.
func (q *clientExchange) Stream() (message.Stream, error) {
	q.rmu.Lock()
	defer q.rmu.Unlock()
	if !q.connect || !q.hasFinal || q.final.Status != http.StatusSwitchingProtocols && (q.final.Status < 200 || q.final.Status > 299) {
		return nil, errNoSwitch
	}
	return (*tunnelStream)(&q.stream), nil
}

// Close implements message.ClientExchange.
func (q *clientExchange) Close() error {
	q.reset(codeCancel, errCancelled)
	q.rmu.Lock()
	defer q.rmu.Unlock()
	q.drop(errDone)
	return nil
}

// response takes a head that answers a request of ours.
func (r *reader) response(s *stream, end bool, fields []hpack.Field, tooLarge bool) error {
	if tooLarge {
		return faulty(s.id, codeEnhanceCalm, "head of the response is too large")
	}
	q := s.q
	header := message.Header(q.fields[:0])
	if len(fields) > len(q.fields) {
		header = make(message.Header, 0, len(fields))
	}
	p, err := parseResponse(fields, header)
	if err != nil {
		return &streamFault{s.id, codeProtocol, err}
	}
	if p.Interim() {
		return r.interim(q, p, end)
	}
	switch none := p.Status == http.StatusNoContent || p.Status == http.StatusNotModified; {
	case q.connect && p.Status <= 299:
		p.Length, s.tunnel = -1, true
		if q.upgrade {
			p.Status = http.StatusSwitchingProtocols // as in HTTP/1.1
		}
	case none || q.head:
		s.recvLen = 0
		if p.Status == http.StatusNoContent {
			p.Length = 0
		}
	case end && p.Length > 0:
		return faulty(s.id, codeProtocol, "content-length without content")
	case end:
		p.Length = 0
	default:
		s.recvLen = p.Length
	}
	s.headDone = true
	s.rmu.Lock()
	q.final, q.hasFinal, q.bare = p, true, end
	s.rmu.Unlock()
	r.touch(s)
	if end {
		return r.endStream(s, nil)
	}
	return nil
}

// interim takes the head of an interim response.
func (r *reader) interim(q *clientExchange, p message.Response, end bool) error {
	switch {
	case end:
		return faulty(q.id, codeProtocol, "interim response ends the stream")
	case p.Length >= 0:
		return faulty(q.id, codeProtocol, "interim response with content-length")
	}
	p.Header = p.Header.Clone()
	p.Length = 0
	q.rmu.Lock()
	q.interims++
	over := q.interims > maxInterim
	if !over {
		q.interim = append(q.interim, &p)
	}
	q.rmu.Unlock()
	if over {
		return faulty(q.id, codeEnhanceCalm, "too many interim responses")
	}
	r.touch(&q.stream)
	return r.countControl()
}
