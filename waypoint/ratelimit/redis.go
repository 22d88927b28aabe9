package ratelimit

import (
	"context"
	"crypto/sha1"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"go.uber.org/zap"

	api "github.com/tulle-mesh/tulle/api/waypoint"
)

//go:embed take.lua
var takeScript string

// takeHash is by what Redis knows the script.
var takeHash = func() string {
	sum := sha1.Sum([]byte(takeScript))
	return hex.EncodeToString(sum[:])
}()

const (
	// maxBatch is how many calls go out in one write: they are short, and the first of
	// them waits for the last to be written.
	maxBatch = 256
	// maxWaiting bounds the calls that are under way or wait to be sent. Beyond it they
	// fail at once: a Redis so slow answers none of them in time.
	maxWaiting = 8192
	// redisDial bounds connecting, with TLS and authentication; redisSilence ends a
	// connection on which a call has not been answered for so long.
	redisDial    = 2 * time.Second
	redisSilence = 2 * time.Second
	// maxPasswordBytes bounds a password: Redis's own ACL GENPASS makes 64.
	maxPasswordBytes = 4 << 10
)

// redis counts in a Redis. Calls of many requests share one connection, on which they
// follow each other without waiting; Redis does one at a time anyhow.
type redis struct {
	cfg  *api.RedisBackend
	dial func(context.Context, string) (net.Conn, error)
	// passwords is the directory of the policies' namespace in the Config's PasswordDir.
	passwords string
	log       *zap.Logger

	calls chan *call
	end   context.CancelFunc
	ended chan struct{}

	health
	mu  sync.Mutex
	why error // why there is no connection; nil while there is one
}

// call is one use of the script.
type call struct {
	keys, args []string
	// done gets the answer; it has room for it, so that nobody waits for whom is gone.
	done chan answer
	// late calls are not sent any more.
	ctx context.Context
}

type answer struct {
	reply reply
	err   error
}

// redis returns the connection to a Redis, which policies share: with a password those of
// one namespace, whose it is.
func (l *Limiter) redis(namespace string, cfg *api.RedisBackend) (remote, func()) {
	name := fmt.Sprintf("redis %s %d %s %s %v", cfg.GetAddress(), cfg.GetDatabase(), cfg.GetUsername(), cfg.GetPasswordFile(), cfg.GetTls())
	if cfg.GetPasswordFile() != "" {
		name += " " + namespace
	}
	passwords := l.cfg.PasswordDir
	if passwords != "" {
		passwords = filepath.Join(passwords, namespace)
	}
	return l.share(name, func() remote {
		ctx, cancel := context.WithCancel(context.Background())
		r := &redis{
			cfg: cfg, dial: l.cfg.Dial, passwords: passwords, log: l.log, calls: make(chan *call, maxWaiting), end: cancel, ended: make(chan struct{}),
			why: errors.New("not connected yet"),
		}
		go r.run(ctx)
		return r
	})
}

func (r *redis) kind() string { return "redis" }

func (r *redis) close() {
	r.end()
	<-r.ended
}

// state notes why there is no connection.
func (r *redis) state(why error) {
	r.mu.Lock()
	r.why = why
	r.mu.Unlock()
}

func (r *redis) down() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.why
}

// trouble is that there is no connection, else what became of the last call.
func (r *redis) trouble() *failure {
	if why := r.down(); why != nil {
		return &failure{at: time.Now(), err: fmt.Errorf("redis %s: %w", r.cfg.GetAddress(), why)}
	}
	return r.health.trouble()
}

// take asks the script for all buckets together.
func (r *redis) take(ctx context.Context, list []*bucket) error {
	c := &call{ctx: ctx, done: make(chan answer, 1)}
	for _, b := range list {
		least, cost := b.least, b.cost
		c.add(b.rule.Counter, string(b.key), "t", least, cost)
	}
	got, err := r.do(ctx, c)
	if err != nil {
		return err
	}
	i := 0
	for _, b := range list {
		out := &b.out
		out.Allowed = got.list[0].n == 1
		out.RetryAfter = 0
		refused := false
		for j := range b.rule.amounts {
			a := &b.rule.amounts[j]
			debt := uint64(max(got.list[1+i].n, 0))
			i++
			need, possible := a.need(b.least)
			if !out.Allowed && (!possible || debt+need > a.capacity) {
				wait := a.wait(debt, fullShare)
				if possible {
					wait = a.wait(debt+need-a.capacity, fullShare)
				}
				if !refused || wait >= out.RetryAfter {
					out.RetryAfter = wait
					a.tell(debt, fullShare, out)
				}
				refused = true
			} else if !refused {
				a.tellNearest(j, debt, fullShare, out)
			}
		}
		if !refused && !out.Allowed {
			// Another rule of the call refused: nothing was taken of this one.
			out.Limit, out.Allowed = 0, false
		}
	}
	return nil
}

// add adds the buckets of a key to the call.
func (c *call) add(counter *Counter, key, mode string, least, cost uint64) {
	for i := range counter.amounts {
		a := &counter.amounts[i]
		need, _ := a.need(least)
		take := a.capacity * maxOverdraft
		if cost <= take/a.unit {
			take = cost * a.unit
		}
		if need > a.capacity {
			need = a.capacity + 1
		}
		c.keys = append(c.keys, counter.redisKey(key, i))
		c.args = append(c.args, mode, strconv.FormatInt(int64(a.tick/time.Microsecond), 10), strconv.FormatUint(a.refill, 10),
			strconv.FormatUint(need, 10), strconv.FormatUint(take, 10), strconv.FormatUint(a.capacity, 10))
	}
}

// redisKey is a bucket's name: the rule's, what the limit is, so that another one does
// not go on with its state, and the key's values.
func (c *Counter) redisKey(key string, i int) string {
	a := &c.amounts[i]
	return fmt.Sprintf("tulle:{%s}:%d/%v:%d:%s", c.name, a.requests, a.per, a.burst, key[len(c.prefix):])
}

// do sends a call and waits for its answer, for a list of as many values as it has keys
// and one.
func (r *redis) do(ctx context.Context, c *call) (reply, error) {
	if why := r.down(); why != nil {
		return reply{}, fmt.Errorf("redis %s: %w", r.cfg.GetAddress(), why)
	}
	select {
	case r.calls <- c:
	default:
		return reply{}, fmt.Errorf("redis %s: %d calls wait already", r.cfg.GetAddress(), maxWaiting)
	}
	select {
	case a := <-c.done:
		switch {
		case a.err != nil:
			return reply{}, fmt.Errorf("redis %s: %w", r.cfg.GetAddress(), a.err)
		case a.reply.err:
			return reply{}, redisError(a.reply.text)
		case len(a.reply.list) != 1+len(c.keys):
			return reply{}, errors.New("redis: the script answered something else")
		}
		return a.reply, nil
	case <-ctx.Done():
		return reply{}, fmt.Errorf("redis %s: %w", r.cfg.GetAddress(), context.Cause(ctx))
	}
}

// charge takes costs that are known only now, whether there is as much or not.
func (r *redis) charge(list []charge) {
	c := &call{ctx: context.Background(), done: make(chan answer, 1)}
	for _, x := range list {
		c.add(x.rule.Counter, x.key, "c", 0, x.cost)
	}
	select {
	case r.calls <- c:
	default:
	}
}

// give returns what was taken for a request that was refused elsewhere.
func (r *redis) give(list []charge) {
	c := &call{ctx: context.Background(), done: make(chan answer, 1)}
	for _, x := range list {
		c.add(x.rule.Counter, x.key, "g", 0, x.cost)
	}
	select {
	case r.calls <- c:
	default:
	}
}
