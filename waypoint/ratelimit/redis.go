package ratelimit

import (
	"bufio"
	"context"
	"crypto/sha1"
	"crypto/tls"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	api "github.com/tulle-mesh/tulle/api/waypoint"
	"github.com/tulle-mesh/tulle/internal/backoff"
	"github.com/tulle-mesh/tulle/internal/mtls"
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

// run keeps a connection until ctx ends.
func (r *redis) run(ctx context.Context) {
	defer close(r.ended)
	wait := backoff.New(50*time.Millisecond, 2*time.Second)
	told := false
	for ctx.Err() == nil {
		conn, err := r.connect(ctx)
		if err == nil {
			if told {
				r.log.Info("redis counts again", zap.String("address", r.cfg.GetAddress()))
			}
			told = false
			wait.Reset()
			r.state(nil)
			r.note(nil)
			err = r.serve(ctx, conn)
		}
		if ctx.Err() != nil {
			break
		}
		r.state(err)
		r.refuse(err)
		if !told {
			r.log.Warn("redis cannot count", zap.String("address", r.cfg.GetAddress()), zap.Error(err))
			told = true
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait.Next()):
		}
	}
	r.state(errors.New("the waypoint ends"))
	r.refuse(errors.New("the waypoint ends"))
}

// refuse answers the calls that wait.
func (r *redis) refuse(err error) {
	for {
		select {
		case c := <-r.calls:
			c.done <- answer{err: err}
		default:
			return
		}
	}
}

// connect dials, and says who it is.
func (r *redis) connect(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, redisDial)
	defer cancel()
	conn, err := r.dial(ctx, r.cfg.GetAddress())
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	if r.cfg.GetTls() {
		host, _, _ := net.SplitHostPort(r.cfg.GetAddress())
		settings, err := mtls.ApplicationClient(mtls.Application{ServerName: host})
		if err != nil {
			_ = conn.Close()
			return nil, err
		}
		secure := tls.Client(conn, settings)
		if err := secure.HandshakeContext(ctx); err != nil {
			_ = conn.Close()
			return nil, err
		}
		conn = secure
	}
	if err := r.greet(conn); err != nil {
		_ = conn.Close()
		return nil, err
	}
	if !stop() {
		return nil, context.Cause(ctx)
	}
	return conn, nil
}

// greet authenticates, chooses the database and loads the script.
func (r *redis) greet(conn net.Conn) error {
	var out []byte
	n := 1
	if r.cfg.GetPasswordFile() != "" {
		password, err := r.password()
		if err != nil {
			return err
		}
		args := []string{"AUTH"}
		if user := r.cfg.GetUsername(); user != "" {
			args = append(args, user)
		}
		out = appendCommand(out, append(args, password)...)
		n++
	}
	if db := r.cfg.GetDatabase(); db != 0 {
		out = appendCommand(out, "SELECT", strconv.FormatUint(uint64(db), 10))
		n++
	}
	out = appendCommand(out, "SCRIPT", "LOAD", takeScript)
	if _, err := conn.Write(out); err != nil {
		return err
	}
	// Nothing comes unasked, so nothing of what follows is lost in the buffer.
	in := bufio.NewReaderSize(conn, 512)
	for range n {
		got, err := readReply(in)
		if err != nil {
			return err
		}
		if got.err {
			return redisError(got.text)
		}
	}
	return nil
}

// password reads the file with the password. The policy's author chooses the file and who
// gets it, so it is one of those that are there for that in his namespace: never the
// waypoint's own token, nor a password of others at the same waypoint.
func (r *redis) password() (string, error) {
	file := r.cfg.GetPasswordFile()
	var f *os.File
	var err error
	if r.passwords == "" {
		f, err = os.Open(file)
	} else {
		var inside string
		if inside, err = filepath.Rel(r.passwords, file); err != nil || !filepath.IsLocal(inside) {
			return "", fmt.Errorf("the password file %s is not below %s", file, r.passwords)
		}
		f, err = os.OpenInRoot(r.passwords, inside)
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxPasswordBytes+1))
	if err != nil {
		return "", err
	}
	if len(text) > maxPasswordBytes {
		return "", fmt.Errorf("the password file %s has more than %d bytes", file, maxPasswordBytes)
	}
	return strings.TrimRight(string(text), "\r\n"), nil
}

// serve sends calls and reads answers until one of both fails, or ctx ends.
func (r *redis) serve(ctx context.Context, conn net.Conn) error {
	sent := make(chan *call, maxWaiting)
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	failed := make(chan error, 1)
	var waiting atomic.Int64
	joined := make(chan struct{})
	go func() {
		defer func() {
			defer close(joined)
			_ = conn.Close()
			for c := range sent {
				c.done <- answer{err: errors.New("the connection broke before the answer")}
			}
		}()
		failed <- r.read(conn, sent, &waiting)
	}()
	err := r.write(ctx, conn, sent, failed, &waiting)
	_ = conn.Close()
	close(sent)
	<-joined
	return err
}

// write gathers what waits into one write.
func (r *redis) write(ctx context.Context, conn net.Conn, sent chan<- *call, failed <-chan error, waiting *atomic.Int64) error {
	var out []byte
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-failed:
			return err
		case c := <-r.calls:
			out = out[:0]
			idle := false
			for n := 0; ; {
				if c.ctx.Err() != nil {
					c.done <- answer{err: c.ctx.Err()}
				} else {
					out = c.append(out)
					idle = waiting.Add(1) == 1 || idle
					select {
					case sent <- c:
					default:
						c.done <- answer{err: errors.New("too many calls are under way")}
						return errors.New("too many calls are under way")
					}
					n++
				}
				if n >= maxBatch {
					break
				}
				select {
				case c = <-r.calls:
					continue
				default:
				}
				break
			}
			if len(out) == 0 {
				continue
			}
			// The silence counts from the first call that waits, not from the last.
			until := time.Now().Add(redisSilence)
			if _ = conn.SetWriteDeadline(until); idle {
				_ = conn.SetReadDeadline(until)
			}
			if _, err := conn.Write(out); err != nil {
				return err
			}
		}
	}
}

func (c *call) append(b []byte) []byte {
	args := make([]string, 0, 3+len(c.keys)+len(c.args))
	args = append(args, "EVALSHA", takeHash, strconv.Itoa(len(c.keys)))
	return appendCommand(b, append(append(args, c.keys...), c.args...)...)
}

// read gives answers to their calls, in order. It waits for what comes also while nothing
// was asked, and so learns at once that a connection has ended.
func (r *redis) read(conn net.Conn, sent <-chan *call, waiting *atomic.Int64) error {
	in := bufio.NewReaderSize(conn, 16<<10)
	for {
		if _, err := in.Peek(1); err != nil {
			return err
		}
		if waiting.Load() == 0 {
			return errors.New("redis: an answer that nobody asked for")
		}
		c, ok := <-sent
		if !ok {
			return net.ErrClosed
		}
		got, err := readReply(in)
		if err != nil {
			c.done <- answer{err: err}
			return err
		}
		c.done <- answer{reply: got}
		if got.err && strings.HasPrefix(got.text, "NOSCRIPT") {
			// It was flushed: the next connection loads it again.
			return redisError(got.text)
		}
		if in.Buffered() > 0 {
			waiting.Add(-1)
			continue
		}
		_ = conn.SetReadDeadline(time.Now().Add(redisSilence))
		if waiting.Add(-1) == 0 {
			_ = conn.SetReadDeadline(time.Time{})
			if waiting.Load() > 0 { // a call was written meanwhile
				_ = conn.SetReadDeadline(time.Now().Add(redisSilence))
			}
		}
	}
}
