package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// patience bounds every wait of a client.
const patience = 120 * time.Second

func dial(addr string) (*net.TCPConn, error) {
	c, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		return nil, err
	}
	return c.(*net.TCPConn), c.SetDeadline(time.Now().Add(patience))
}

// describe names the errors that tests look for.
func describe(err error) string {
	switch {
	case errors.Is(err, syscall.ECONNRESET):
		return "reset"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "refused"
	case errors.Is(err, io.EOF):
		return "closed in order"
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "timed out"
	}
	return err.Error()
}

func arguments(args []string, usage string, n int) error {
	if len(args) != n {
		return errors.New("usage: peer " + usage)
	}
	return nil
}

// echo sends one text and prints what comes back.
func echo(args []string) error {
	if err := arguments(args, "echo HOST:PORT TEXT", 2); err != nil {
		return err
	}
	c, err := dial(args[0])
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := io.WriteString(c, args[1]); err != nil {
		return err
	}
	got := make([]byte, len(args[1]))
	if _, err := io.ReadFull(c, got); err != nil {
		return err
	}
	fmt.Println(string(got))
	return nil
}

// many holds N connections open at once and then sends a message on each.
func many(args []string) error {
	if err := arguments(args, "many HOST:PORT N", 2); err != nil {
		return err
	}
	n, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	conns := make([]*net.TCPConn, n)
	if err := each(n, func(i int) (err error) { conns[i], err = dial(args[0]); return err }); err != nil {
		return fmt.Errorf("open: %w", err)
	}
	if err := each(n, func(i int) error {
		defer conns[i].Close()
		message := bytes.Repeat([]byte(strconv.Itoa(i)+"."), 200)
		if _, err := conns[i].Write(message); err != nil {
			return err
		}
		got := make([]byte, len(message))
		if _, err := io.ReadFull(conns[i], got); err != nil {
			return err
		}
		if !bytes.Equal(got, message) {
			return fmt.Errorf("connection %d got another's bytes", i)
		}
		return nil
	}); err != nil {
		return fmt.Errorf("exchange: %w", err)
	}
	fmt.Println("connections:", n)
	return nil
}

// each runs f(0) ... f(n-1), at most 200 at once, and returns the first error.
func each(n int, f func(int) error) error {
	var wg sync.WaitGroup
	slots, first := make(chan struct{}, 200), make(chan error, 1)
	for i := range n {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			if err := f(i); err != nil {
				select {
				case first <- err:
				default:
				}
			}
		})
	}
	wg.Wait()
	select {
	case err := <-first:
		return err
	default:
		return nil
	}
}

// greet waits for the server to speak first, sending nothing.
func greet(args []string) error {
	if err := arguments(args, "greet HOST:PORT", 1); err != nil {
		return err
	}
	c, err := dial(args[0])
	if err != nil {
		return err
	}
	defer c.Close()
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		return err
	}
	fmt.Print(line)
	return nil
}

// put sends N bytes to a sink, and compares the sink's answer with its own sum.
func put(args []string) error {
	if err := arguments(args, "put HOST:PORT BYTES", 2); err != nil {
		return err
	}
	n, err := strconv.ParseInt(args[1], 10, 64)
	if err != nil {
		return err
	}
	c, err := dial(args[0])
	if err != nil {
		return err
	}
	defer c.Close()
	h := sha256.New()
	if _, err := io.CopyBuffer(struct{ io.Writer }{c}, io.TeeReader(content(n), h), make([]byte, 256<<10)); err != nil {
		return err
	}
	if err := c.CloseWrite(); err != nil {
		return err
	}
	answer, err := io.ReadAll(c)
	if err != nil {
		return err
	}
	if want := fmt.Sprintf("%d %s\n", n, hex.EncodeToString(h.Sum(nil))); string(answer) != want {
		return fmt.Errorf("the sink got %q, sent were %q", answer, want)
	}
	fmt.Println("put:", n)
	return nil
}

// get fetches N bytes from a source and compares their sum with what they must be.
func get(args []string) error {
	if err := arguments(args, "get HOST:PORT BYTES", 2); err != nil {
		return err
	}
	n, err := strconv.ParseInt(args[1], 10, 64)
	if err != nil {
		return err
	}
	c, err := dial(args[0])
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := fmt.Fprintln(c, n); err != nil {
		return err
	}
	got, want := sha256.New(), sha256.New()
	m, err := io.CopyBuffer(got, struct{ io.Reader }{c}, make([]byte, 256<<10))
	if err != nil {
		return err
	}
	if _, err := io.Copy(want, content(n)); err != nil {
		return err
	}
	if m != n || !bytes.Equal(got.Sum(nil), want.Sum(nil)) {
		return fmt.Errorf("got %d bytes with another sum, want %d", m, n)
	}
	fmt.Println("get:", n)
	return nil
}

// half sends, shuts down writing, and only then reads the answer.
func half(args []string) error {
	if err := arguments(args, "half HOST:PORT", 1); err != nil {
		return err
	}
	return put([]string{args[0], "11"})
}

// reset expects the server's reset.
func reset(args []string) error {
	if err := arguments(args, "reset HOST:PORT", 1); err != nil {
		return err
	}
	c, err := dial(args[0])
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := io.WriteString(c, "reset me\n"); err != nil {
		return err
	}
	_, err = c.Read(make([]byte, 1))
	fmt.Println(describe(err))
	return nil
}

// abort resets a connection from the client's side and asks the server how it saw it end.
func abort(args []string) error {
	if err := arguments(args, "abort HOST:PORT", 1); err != nil {
		return err
	}
	c, err := dial(args[0])
	if err != nil {
		return err
	}
	if _, err := io.WriteString(c, "soon gone\n"); err != nil {
		return err
	}
	time.Sleep(200 * time.Millisecond) // so that the line has arrived before the reset overtakes it
	if err := c.SetLinger(0); err != nil {
		return err
	}
	c.Close()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		how, err := askLast(args[0])
		if err != nil {
			return err
		}
		if how != "" {
			fmt.Println(how)
			return nil
		}
	}
	return errors.New("the server did not see the connection end")
}

func askLast(addr string) (string, error) {
	c, err := dial(addr)
	if err != nil {
		return "", err
	}
	defer c.Close()
	if _, err := io.WriteString(c, "last\n"); err != nil {
		return "", err
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	return strings.TrimSpace(line), err
}

// hold keeps one connection busy, a message every 100 ms, until it ends; it
// prints "open" once the first echo came and then how the connection ended.
func hold(args []string) error {
	if err := arguments(args, "hold HOST:PORT", 1); err != nil {
		return err
	}
	c, err := dial(args[0])
	if err != nil {
		return err
	}
	defer c.Close()
	for n := 0; ; n++ {
		if _, err := io.WriteString(c, "still here\n"); err != nil {
			fmt.Println(describe(err))
			return nil
		}
		if _, err := io.ReadFull(c, make([]byte, 11)); err != nil {
			fmt.Println(describe(err))
			return nil
		}
		if n == 0 {
			fmt.Println("open")
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// whoami prints the address under which the server sees us.
func whoami(args []string) error {
	if err := arguments(args, "whoami HOST:PORT", 1); err != nil {
		return err
	}
	c, err := dial(args[0])
	if err != nil {
		return err
	}
	defer c.Close()
	answer, err := io.ReadAll(c)
	if err != nil {
		return err
	}
	host, _, err := net.SplitHostPort(strings.TrimSpace(string(answer)))
	if err != nil {
		return err
	}
	fmt.Println(host)
	return nil
}

// tlsOpen tries a TLS handshake with a tunnel's port, with a client certificate
// or with none, and prints whether the peer kept the connection.
func tlsOpen(args []string) error {
	if len(args) != 1 && len(args) != 3 {
		return errors.New("usage: peer tls-open HOST:PORT [CERT.pem KEY.pem]")
	}
	cfg := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS13}
	if len(args) == 3 {
		pair, err := tls.LoadX509KeyPair(args[1], args[2])
		if err != nil {
			return err
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	raw, err := dial(args[0])
	if err != nil {
		return err
	}
	c := tls.Client(raw, cfg)
	defer c.Close()
	if err := c.Handshake(); err != nil {
		fmt.Println("refused:", err)
		return nil
	}
	// In TLS 1.3 the server's verdict on our certificate arrives with the first
	// read; a server that accepts sends its HTTP/2 SETTINGS.
	if _, err := io.WriteString(c, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"); err != nil {
		fmt.Println("refused:", err)
		return nil
	}
	if _, err := c.Read(make([]byte, 9)); err != nil {
		fmt.Println("refused:", err)
		return nil
	}
	fmt.Println("accepted")
	return nil
}
