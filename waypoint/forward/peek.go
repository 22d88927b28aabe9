package forward

import (
	"errors"
	"io"
	"sync"

	api "github.com/tulle-mesh/tulle/api/waypoint"
	"github.com/tulle-mesh/tulle/waypoint/extauthz"
	"github.com/tulle-mesh/tulle/waypoint/message"
)

// errPeeksFull is the error of content that there is no room for.
var errPeeksFull = errors.New("too much content is held for external authorizers already")

// peeks counts the bytes of content that is held for authorizers, over all requests,
// and those of each client, so that one that stalls leaves room to the others.
type peeks struct {
	mu   sync.Mutex
	all  int
	each map[string]int // by identity; of who holds something
}

func (p *peeks) take(client string, n int) error {
	if n == 0 {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.all+n > maxPeekedBytes || p.each[client]+n > maxPeekedBytes/2 {
		return errPeeksFull
	}
	if p.each == nil {
		p.each = map[string]int{}
	}
	p.all += n
	p.each[client] += n
	return nil
}

func (p *peeks) give(client string, n int) {
	if n == 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.all -= n
	if p.each[client] -= n; p.each[client] == 0 {
		delete(p.each, client)
	}
}

// quote puts into the question what the authorizer wants to see of the content. What
// the question copies of it is counted until release. The error is errPeeksFull, or what
// the client gets to hear of.
func (e *exchange) quote(q *extauthz.Question, auth *api.ExternalAuth) (release func(), err error) {
	max := extauthz.Content(auth)
	if max == 0 {
		return func() {}, nil
	}
	client := identity(e.c)
	q.Body, q.Whole, err = e.body.peek(&e.f.peeks, client, e.r, e.x, max)
	switch {
	case errors.Is(err, errPeeksFull):
		return nil, err
	case err != nil:
		return nil, brokenContent{err}
	case !q.Whole && !auth.GetPartialBody():
		return nil, longContent{max}
	}
	copies := extauthz.Copies(auth) * len(q.Body)
	if err := e.f.peeks.take(client, copies); err != nil {
		return nil, err
	}
	return func() { e.f.peeks.give(client, copies) }, nil
}

// peek reads up to max bytes of the content, and leaves it all to be sent.
func (c *content) peek(from *peeks, client string, r *message.Request, x message.Exchange, max int) (first []byte, whole bool, err error) {
	if switches(r) || r.Length == 0 {
		return nil, true, nil
	}
	p, ok := c.body.(*peeked)
	if !ok {
		p = &peeked{rest: x.Body(), from: from, client: client}
		c.body = p
	}
	if err := p.fill(max + 1); err != nil {
		return nil, false, err
	}
	if len(p.first) > max {
		return p.first[:max:max], false, nil
	}
	return p.first, p.ended, nil
}

// peeked is content of which the beginning has been read.
type peeked struct {
	first []byte
	rest  message.Body
	// ended tells that first is all.
	ended bool
	// held is how much is counted in from, for client.
	from   *peeks
	client string
	mu     sync.Mutex
	held   int
}

// release gives back what is counted: first is gone, or the request is over.
func (p *peeked) release() {
	p.mu.Lock()
	n := p.held
	p.held = 0
	p.mu.Unlock()
	p.from.give(p.client, n)
}

// release gives back what is counted of the content, when its request is over.
func (c *content) release() {
	if p, ok := c.body.(*peeked); ok {
		p.release()
	}
}

// fill reads until n bytes are there, or all. The error is errPeeksFull, or the content's.
func (p *peeked) fill(n int) error {
	for len(p.first) < n && !p.ended {
		if len(p.first) == cap(p.first) {
			size := min(max(2*cap(p.first), 4<<10), n)
			if err := p.from.take(p.client, size-cap(p.first)); err != nil {
				return err
			}
			p.mu.Lock()
			p.held += size - cap(p.first)
			p.mu.Unlock()
			grown := make([]byte, len(p.first), size)
			copy(grown, p.first)
			p.first = grown
		}
		got, err := p.rest.Read(p.first[len(p.first):cap(p.first)])
		p.first = p.first[:len(p.first)+got]
		if errors.Is(err, io.EOF) {
			p.ended = true
		} else if err != nil {
			return err
		}
	}
	return nil
}

// Read implements message.Body.
func (p *peeked) Read(b []byte) (int, error) {
	if len(p.first) > 0 {
		n := copy(b, p.first)
		if p.first = p.first[n:]; len(p.first) == 0 {
			p.first = nil
			p.release()
			if p.ended {
				return n, io.EOF
			}
		}
		return n, nil
	}
	if p.ended {
		return 0, io.EOF
	}
	return p.rest.Read(b)
}

// Trailer implements message.Body.
func (p *peeked) Trailer() message.Header { return p.rest.Trailer() }

// Buffered implements message.BufferedBody.
func (p *peeked) Buffered() (int, bool) {
	if p.ended {
		return len(p.first), true
	}
	if rest, ok := p.rest.(message.BufferedBody); ok {
		n, whole := rest.Buffered()
		return len(p.first) + n, whole
	}
	return len(p.first), false
}
