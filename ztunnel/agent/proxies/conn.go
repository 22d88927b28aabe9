package proxies

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/tulle-mesh/tulle/ztunnel/zds"
)

// errSilent ends a connection whose proxy does not answer.
var errSilent = errors.New("the proxy did not answer in time")

// item is one thing to tell a proxy.
type item struct {
	uid    string
	gone   bool
	answer chan<- error // of a gone item
}

// conn is one proxy's connection. Its queue may be filled from anywhere; all
// else belongs to run.
type conn struct {
	wire *zds.Conn
	wake chan struct{}

	mu    sync.Mutex
	queue []item
	// queued are the uids of waiting items that are not gone: one is enough.
	queued map[string]bool
	ended  bool
}

// push adds to the queue, which holds each pod at most once and so never more
// than there are pods.
func (c *conn) push(i item) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.ended:
		if i.answer != nil {
			i.answer <- nil // a proxy without connection serves what it is told later
		}
		return
	case !i.gone && c.queued[i.uid]:
		return
	case !i.gone:
		if c.queued == nil {
			c.queued = map[string]bool{}
		}
		c.queued[i.uid] = true
	default:
		// What comes after must not be taken for what waits before.
		delete(c.queued, i.uid)
	}
	c.queue = append(c.queue, i)
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (c *conn) pop() (item, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.queue) == 0 {
		c.queue = nil
		return item{}, false
	}
	i := c.queue[0]
	c.queue = c.queue[1:]
	if !i.gone {
		delete(c.queued, i.uid)
	}
	return i, true
}

// end answers what is left in the queue: a proxy that is cut off must list its
// pods anew and so hears of all that left.
func (c *conn) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = true
	for _, i := range c.queue {
		if i.answer != nil {
			i.answer <- nil
		}
	}
	c.queue = nil
}

// run tells the proxy all pods, then what comes through the queue.
func (c *conn) run(ctx context.Context, s *Server) error {
	// Acks are read all the time, so that a proxy's end is seen at once.
	acks := make(chan error)
	stopped := make(chan struct{})
	var reader sync.WaitGroup
	defer reader.Wait()
	defer c.wire.Close()
	defer close(stopped)
	c.wire.SetReadDeadline(time.Time{})
	reader.Go(func() {
		for {
			err := c.wire.ReceiveAck()
			select {
			case acks <- err:
			case <-stopped:
				return
			}
			if err != nil && !isRefusal(err) {
				return
			}
		}
	})

	timer := time.NewTimer(s.cfg.AckTimeout)
	defer timer.Stop()
	// tell sends one request and returns the proxy's answer, or the error that
	// ends the connection.
	tell := func(r zds.Request) (answer, broken error) {
		if err := c.wire.Send(r); err != nil {
			var refused *zds.RequestError
			if errors.As(err, &refused) {
				return err, nil // nothing was sent
			}
			return nil, err
		}
		timer.Reset(s.cfg.AckTimeout)
		select {
		case err := <-acks:
			if err != nil && !isRefusal(err) {
				return nil, err
			}
			return err, nil
		case <-timer.C:
			s.metrics.timeouts.Inc()
			return nil, errSilent
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	listed := false
	deliver := func(i item) error {
		if i.gone {
			answer, broken := tell(&zds.Del{UID: i.uid})
			i.answer <- answer
			return broken
		}
		request, answered := s.source.Request(i.uid)
		if request == nil {
			return nil
		}
		if _, keep := request.(*zds.Keep); keep && listed {
			answered(ErrUnanswered) // only the list may keep pods
			return nil
		}
		answer, broken := tell(request)
		if broken != nil || !s.isNewest(c) {
			answer = ErrUnanswered
		} else if answer != nil {
			s.metrics.refused.Inc()
		} else {
			s.retire(c, i.uid)
		}
		answered(answer)
		if broken != nil {
			return fmt.Errorf("pod %s: %w", i.uid, broken)
		}
		return nil
	}

	uids := s.source.UIDs()
	for _, uid := range uids {
		if err := deliver(item{uid: uid}); err != nil {
			return err
		}
	}
	if _, broken := tell(&zds.SnapshotSent{}); broken != nil {
		return fmt.Errorf("end of the list: %w", broken)
	}
	listed = true
	s.log.Info("proxy has the list of pods", zap.Int("pods", len(uids)))
	for {
		for i, ok := c.pop(); ok; i, ok = c.pop() {
			if err := deliver(i); err != nil {
				return err
			}
		}
		select {
		case <-c.wake:
		case err := <-acks:
			if err == nil || isRefusal(err) {
				err = &zds.ProtocolError{Reason: "ack without a request"}
			}
			return err
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (s *Server) isNewest(c *conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns) > 0 && s.conns[len(s.conns)-1] == c
}

func isRefusal(err error) bool {
	var refused *zds.RefusedError
	return errors.As(err, &refused)
}
