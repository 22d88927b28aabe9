package load

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"golang.org/x/sys/unix"
)

// Mode is what a client does.
type Mode string

// The modes of a client.
const (
	Up      Mode = "up"      // send bulk data
	Down    Mode = "down"    // receive bulk data
	Echo    Mode = "echo"    // requests and answers, closed loop
	Rate    Mode = "rate"    // requests and answers, open loop at RatePerSecond
	Connect Mode = "connect" // connect, one byte each way, close
	Idle    Mode = "idle"    // open connections, use each once, and hold them
)

// Job says what one client process does.
type Job struct {
	Mode     Mode          `json:"mode"`
	Addr     string        `json:"addr"`
	Conns    int           `json:"conns"`
	Duration time.Duration `json:"duration"`
	// Requests ends an echo job after so many on each connection; 0 says when Duration is over.
	Requests int `json:"requests"`
	// RatePerSecond is how many requests a Rate job starts on all connections together.
	RatePerSecond int `json:"ratePerSecond"`
	// Path is what the modes of HTTP ask for, Header the lines that they send besides.
	Path   string   `json:"path"`
	Header []string `json:"header"`
}

// Result is what a client process measured.
type Result struct {
	// Seconds is how long it took in fact.
	Seconds float64 `json:"seconds"`
	// Bytes of bulk data that arrived.
	Bytes uint64 `json:"bytes"`
	// Count of requests or connections.
	Count uint64 `json:"count"`
	// P50, P90 and P99 are latencies of requests in microseconds.
	P50 float64 `json:"p50"`
	P90 float64 `json:"p90"`
	P99 float64 `json:"p99"`
}

const (
	// dialTimeout bounds one connection attempt.
	dialTimeout = 10 * time.Second
	// grace bounds what remains to do when the time of a job is over.
	grace = 15 * time.Second
	// maxLatency is the largest latency that the histogram takes.
	maxLatency = time.Minute
)

// Run does a job. For Idle and HTTPIdle it calls ready when all connections stand and holds
// them until ctx ends.
func Run(ctx context.Context, j Job, ready func()) (Result, error) {
	c := &client{job: j}
	start := time.Now()
	c.end = start.Add(j.Duration)
	work := map[Mode]func() error{
		Up: c.up, Down: c.down, Echo: c.echo, Rate: c.rate, Connect: c.connect, Idle: c.hold,
		HTTPEcho: c.httpEcho, HTTPRate: c.httpRate, HTTPIdle: c.httpHold,
	}[j.Mode]
	if work == nil {
		return Result{}, fmt.Errorf("unknown mode %q", j.Mode)
	}
	c.latency = hdrhistogram.New(1, maxLatency.Microseconds(), 3)
	defer c.closeHeld()
	errs := make(chan error, j.Conns)
	for range j.Conns {
		go func() { errs <- work() }()
	}
	var failed error
	for range j.Conns {
		failed = errors.Join(failed, <-errs)
	}
	if failed != nil {
		return Result{}, failed
	}
	if j.Mode == Idle || j.Mode == HTTPIdle {
		ready()
		<-ctx.Done()
	}
	c.result.Seconds = time.Since(start).Seconds()
	c.result.P50 = float64(c.latency.ValueAtQuantile(50))
	c.result.P90 = float64(c.latency.ValueAtQuantile(90))
	c.result.P99 = float64(c.latency.ValueAtQuantile(99))
	return c.result, nil
}

type client struct {
	job Job
	end time.Time

	mu      sync.Mutex
	result  Result
	latency *hdrhistogram.Histogram
	held    []net.Conn
}

func (c *client) dial(what byte) (net.Conn, error) {
	conn, err := net.DialTimeout("tcp", c.job.Addr, dialTimeout)
	if err != nil {
		return nil, err
	}
	conn.SetDeadline(c.end.Add(grace))
	if _, err := conn.Write([]byte{what}); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

func (c *client) add(bytes, count uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.result.Bytes += bytes
	c.result.Count += count
}

func (c *client) up() error {
	conn, err := c.dial(askSink)
	if err != nil {
		return err
	}
	defer conn.Close()
	buf := make([]byte, bulkBytes)
	var sent uint64
	for time.Now().Before(c.end) {
		n, err := conn.Write(buf)
		sent += uint64(n)
		if err != nil {
			return fmt.Errorf("send: %w", err)
		}
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		return err
	}
	var told [8]byte
	if _, err := io.ReadFull(conn, told[:]); err != nil {
		return fmt.Errorf("count of what arrived: %w", err)
	}
	if got := binary.BigEndian.Uint64(told[:]); got != sent {
		return fmt.Errorf("sent %d bytes, %d arrived", sent, got)
	}
	c.add(sent, 1)
	return nil
}

func (c *client) down() error {
	conn, err := c.dial(askSource)
	if err != nil {
		return err
	}
	defer conn.Close()
	buf := make([]byte, bulkBytes)
	var got uint64
	for time.Now().Before(c.end) {
		n, err := conn.Read(buf)
		got += uint64(n)
		if err != nil {
			return fmt.Errorf("receive: %w", err)
		}
	}
	c.add(got, 1)
	return nil
}

func (c *client) echo() error {
	conn, err := c.dial(askEcho)
	if err != nil {
		return err
	}
	defer conn.Close()
	latency := hdrhistogram.New(1, maxLatency.Microseconds(), 3)
	for n := 0; c.job.Requests == 0 && time.Now().Before(c.end) || n < c.job.Requests; n++ {
		start := time.Now()
		if err := exchange(conn); err != nil {
			return err
		}
		latency.RecordValue(time.Since(start).Microseconds())
	}
	c.addLatencies(latency)
	return nil
}

// addLatencies merges what one connection saw.
func (c *client) addLatencies(h *hdrhistogram.Histogram) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.result.Count += uint64(h.TotalCount())
	c.latency.Merge(h)
}

// rate sends at fixed times, whether answers come or not: a latency counts from
// when its request was due, so that a stall is seen by all requests that it delays.
func (c *client) rate() error {
	conn, err := c.dial(askEcho)
	if err != nil {
		return err
	}
	defer conn.Close()
	interval := time.Duration(c.job.Conns) * time.Second / time.Duration(c.job.RatePerSecond)
	// The connections take turns.
	due := time.Now().Add(rand.N(interval))
	latency := hdrhistogram.New(1, maxLatency.Microseconds(), 3)
	for ; due.Before(c.end); due = due.Add(interval) {
		if err := sleepUntil(due); err != nil {
			return err
		}
		if err := exchange(conn); err != nil {
			return err
		}
		latency.RecordValue(time.Since(due).Microseconds())
	}
	c.addLatencies(latency)
	return nil
}

func exchange(conn net.Conn) error {
	var buf [MessageBytes]byte
	if _, err := conn.Write(buf[:]); err != nil {
		return fmt.Errorf("request: %w", err)
	}
	if _, err := io.ReadFull(conn, buf[:]); err != nil {
		return fmt.Errorf("answer: %w", err)
	}
	return nil
}

// sleepUntil sleeps on a thread of its own: the runtime's timers wake up to a
// millisecond late when nothing else happens.
func sleepUntil(t time.Time) error {
	for {
		left := time.Until(t)
		if left <= 0 {
			return nil
		}
		ts := unix.NsecToTimespec(left.Nanoseconds())
		if err := unix.Nanosleep(&ts, nil); err != nil && err != unix.EINTR {
			return fmt.Errorf("sleep: %w", err)
		}
	}
}

func (c *client) connect() error {
	var n uint64
	for time.Now().Before(c.end) {
		conn, err := c.dial(askPing)
		if err != nil {
			return err
		}
		var b [1]byte
		_, err = io.ReadFull(conn, b[:])
		conn.Close()
		if err != nil {
			return fmt.Errorf("connection %d: %w", n, err)
		}
		n++
	}
	c.add(0, n)
	return nil
}

// idleDialers is how many connections are made at a time, so that a thousand
// do not overrun the backlog of whoever accepts them.
var idleDialers = make(chan struct{}, 32)

func (c *client) hold() error {
	idleDialers <- struct{}{}
	defer func() { <-idleDialers }()
	conn, err := c.dial(askEcho)
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.held = append(c.held, conn)
	c.mu.Unlock()
	if err := exchange(conn); err != nil {
		return err
	}
	c.add(0, 1)
	return conn.SetDeadline(time.Time{})
}

func (c *client) closeHeld() {
	for _, conn := range c.held {
		conn.Close()
	}
}
