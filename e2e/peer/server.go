package main

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"sync"
)

// The ports of serve, one protocol each.
const (
	portEcho   = 7000 // echoes until the client shuts down writing, then closes
	portGreet  = 7001 // speaks first, then echoes
	portSource = 7002 // reads a line with a number of bytes, sends as many
	portSink   = 7003 // reads to the end, then answers with the count and the SHA-256
	portReset  = 7004 // reads a line, then resets
	portWhoami = 7005 // writes the address that it sees the client at
	portAbort  = 7006 // reads to the end and remembers how it ended; a new connection's line "last" asks
)

// serve listens on all ports until one listener fails.
func serve(args []string) error {
	if len(args) != 0 {
		return errors.New("usage: peer serve")
	}
	var ended lastEnd
	protocols := map[int]func(*net.TCPConn) error{
		portEcho:   serveEcho,
		portGreet:  serveGreet,
		portSource: serveSource,
		portSink:   serveSink,
		portReset:  serveReset,
		portWhoami: serveWhoami,
		portAbort:  ended.serve,
	}
	failed := make(chan error, len(protocols))
	for port, f := range protocols {
		l, err := net.Listen("tcp", ":"+strconv.Itoa(port))
		if err != nil {
			return err
		}
		go func() { failed <- acceptAll(l, f) }()
	}
	fmt.Println("serving")
	return <-failed
}

func acceptAll(l net.Listener, f func(*net.TCPConn) error) error {
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			if err := f(c.(*net.TCPConn)); err != nil {
				fmt.Printf("%s from %s: %v\n", l.Addr(), c.RemoteAddr(), err)
			}
		}()
	}
}

func serveEcho(c *net.TCPConn) error {
	_, err := io.Copy(c, c)
	return err
}

func serveGreet(c *net.TCPConn) error {
	if _, err := io.WriteString(c, "220 hello\n"); err != nil {
		return err
	}
	return serveEcho(c)
}

func serveSource(c *net.TCPConn) error {
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		return err
	}
	n, err := strconv.ParseInt(strings.TrimSpace(line), 10, 64)
	if err != nil {
		return err
	}
	_, err = io.Copy(c, content(n))
	return err
}

func serveSink(c *net.TCPConn) error {
	h := sha256.New()
	n, err := io.Copy(h, c)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(c, "%d %s\n", n, hex.EncodeToString(h.Sum(nil)))
	return err
}

func serveReset(c *net.TCPConn) error {
	if _, err := bufio.NewReader(c).ReadString('\n'); err != nil {
		return err
	}
	return c.SetLinger(0)
}

func serveWhoami(c *net.TCPConn) error {
	_, err := fmt.Fprintln(c, c.RemoteAddr())
	return err
}

// lastEnd remembers how the last connection ended.
type lastEnd struct {
	mu  sync.Mutex
	how string
}

func (l *lastEnd) serve(c *net.TCPConn) error {
	r := bufio.NewReader(c)
	line, err := r.ReadString('\n')
	if err == nil && line == "last\n" {
		l.mu.Lock()
		defer l.mu.Unlock()
		_, err = fmt.Fprintln(c, l.how)
		return err
	}
	if err == nil {
		_, err = io.Copy(io.Discard, r)
	}
	how := "closed in order"
	if err != nil && !errors.Is(err, io.EOF) {
		how = describe(err)
	}
	l.mu.Lock()
	l.how = how
	l.mu.Unlock()
	return nil
}

// content returns n bytes that are the same every time.
func content(n int64) io.Reader {
	return io.LimitReader(rand.NewChaCha8([32]byte([]byte("the same bytes on every machine."))), n)
}
