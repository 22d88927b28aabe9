package load

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// The modes of a client that speaks HTTP/1.1. Each GETs Job.Path on a connection of
// its own that it keeps, and wants 200 with ResponseBytes of content.
const (
	HTTPEcho Mode = "http-echo" // closed loop
	HTTPRate Mode = "http-rate" // open loop at RatePerSecond
	HTTPIdle Mode = "http-idle" // use each connection once, and hold them
)

// ResponseBytes is the size of a response's content.
const ResponseBytes = 1 << 10

// httpConn is a client's connection: as little as the responses of a benchmark need,
// so that its own cost hides nothing.
type httpConn struct {
	net.Conn
	in      *bufio.Reader
	request []byte
	content [ResponseBytes]byte
}

func (c *client) dialHTTP() (*httpConn, error) {
	conn, err := net.DialTimeout("tcp", c.job.Addr, dialTimeout)
	if err != nil {
		return nil, err
	}
	conn.SetDeadline(c.end.Add(grace))
	var b bytes.Buffer
	fmt.Fprintf(&b, "GET %s HTTP/1.1\r\nHost: %s\r\n", c.job.Path, c.job.Addr)
	for _, line := range c.job.Header {
		fmt.Fprintf(&b, "%s\r\n", line)
	}
	b.WriteString("\r\n")
	return &httpConn{Conn: conn, in: bufio.NewReaderSize(conn, 4<<10), request: b.Bytes()}, nil
}

// exchange sends a request and reads its response.
func (c *httpConn) exchange() error {
	if _, err := c.Write(c.request); err != nil {
		return fmt.Errorf("request: %w", err)
	}
	length := -1
	for first := true; ; first = false {
		line, err := c.in.ReadSlice('\n')
		if err != nil {
			return fmt.Errorf("response: %w", err)
		}
		line = bytes.TrimRight(line, "\r\n")
		if first && !bytes.HasPrefix(line, []byte("HTTP/1.1 200 ")) {
			return fmt.Errorf("response %q", line)
		}
		if len(line) == 0 {
			break
		}
		if name, value, _ := bytes.Cut(line, []byte(":")); len(name) == len("content-length") && strings.EqualFold(string(name), "content-length") {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return fmt.Errorf("response: %w", err)
			}
		}
	}
	if length != ResponseBytes {
		return fmt.Errorf("response of %d bytes, want %d", length, ResponseBytes)
	}
	_, err := io.ReadFull(c.in, c.content[:])
	return err
}

func (c *client) httpEcho() error {
	conn, err := c.dialHTTP()
	if err != nil {
		return err
	}
	defer conn.Close()
	latency := hdrhistogram.New(1, maxLatency.Microseconds(), 3)
	for n := 0; c.job.Requests == 0 && time.Now().Before(c.end) || n < c.job.Requests; n++ {
		start := time.Now()
		if err := conn.exchange(); err != nil {
			return err
		}
		latency.RecordValue(time.Since(start).Microseconds())
	}
	c.addLatencies(latency)
	return nil
}

// httpRate is rate over HTTP.
func (c *client) httpRate() error {
	conn, err := c.dialHTTP()
	if err != nil {
		return err
	}
	defer conn.Close()
	interval := time.Duration(c.job.Conns) * time.Second / time.Duration(c.job.RatePerSecond)
	due := time.Now().Add(rand.N(interval))
	latency := hdrhistogram.New(1, maxLatency.Microseconds(), 3)
	for ; due.Before(c.end); due = due.Add(interval) {
		if err := sleepUntil(due); err != nil {
			return err
		}
		if err := conn.exchange(); err != nil {
			return err
		}
		latency.RecordValue(time.Since(due).Microseconds())
	}
	c.addLatencies(latency)
	return nil
}

func (c *client) httpHold() error {
	idleDialers <- struct{}{}
	defer func() { <-idleDialers }()
	conn, err := c.dialHTTP()
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.held = append(c.held, conn)
	c.mu.Unlock()
	if err := conn.exchange(); err != nil {
		return err
	}
	c.add(0, 1)
	return conn.SetDeadline(time.Time{})
}
