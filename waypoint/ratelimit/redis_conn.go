package ratelimit

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/tulle-mesh/tulle/internal/backoff"
	"github.com/tulle-mesh/tulle/internal/mtls"
)

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
