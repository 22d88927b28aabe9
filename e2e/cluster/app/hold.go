package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// holdSpec is one long connection to an echo server.
type holdSpec struct {
	Addr string
	// Every is the time between two lines, Timeout bounds each line's way there and back.
	Every, Timeout time.Duration
	Duration       time.Duration
	Marker         string
	// Greeted expects a line of the server before the first of the client.
	Greeted bool
	// Reconnect opens another connection when one broke; otherwise the job ends.
	Reconnect bool
}

func (s *holdSpec) add(f *flag.FlagSet) {
	f.StringVar(&s.Addr, "addr", "", "HOST:PORT of an echo server")
	f.DurationVar(&s.Every, "every", 100*time.Millisecond, "time between two lines")
	f.DurationVar(&s.Timeout, "timeout", 10*time.Second, "for a line to come back")
	f.DurationVar(&s.Duration, "duration", 0, "end after this time; 0 is until stopped")
	f.StringVar(&s.Marker, "marker", os.Getenv("MARKER"), "part of each line ($MARKER)")
	f.BoolVar(&s.Greeted, "greeted", false, "the server speaks first")
	f.BoolVar(&s.Reconnect, "reconnect", false, "open another connection when one broke")
}

// holdResult tells the life of the connections.
type holdResult struct {
	// Connected counts connections, Echoed the lines that came back.
	Connected int `json:"connected"`
	Echoed    int `json:"echoed"`
	// Breaks are the ends that nobody asked for.
	Breaks []failure `json:"breaks,omitempty"`
	// Running tells whether a connection is open now.
	Running bool    `json:"running"`
	Seconds float64 `json:"seconds"`
	// Peer is what the server said of the connection: its name and the address it saw.
	Peer string `json:"peer,omitempty"`
}

type hold struct {
	spec  holdSpec
	begun time.Time

	mu     sync.Mutex
	result holdResult
}

func newHold(spec holdSpec) (*hold, error) {
	if spec.Addr == "" {
		return nil, usageError{fmt.Errorf("hold: --addr is needed")}
	}
	return &hold{spec: spec, begun: time.Now()}, nil
}

func (h *hold) run(ctx context.Context) {
	if h.spec.Duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, h.spec.Duration)
		defer cancel()
	}
	for {
		begun := time.Now()
		err := h.connection(ctx)
		if ctx.Err() != nil {
			return
		}
		h.mu.Lock()
		h.result.Running = false
		if len(h.result.Breaks) < maxTold {
			h.result.Breaks = append(h.result.Breaks, failure{time.Now().UTC(), float64(time.Since(begun).Milliseconds()), reason(err), err.Error()})
		}
		h.mu.Unlock()
		if !h.spec.Reconnect {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(h.spec.Every):
		}
	}
}

func (h *hold) connection(ctx context.Context) error {
	d := net.Dialer{Timeout: h.spec.Timeout}
	c, err := d.DialContext(ctx, "tcp", h.spec.Addr)
	if err != nil {
		return err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	r := bufio.NewReader(c)
	exchange := func(line string) (string, error) {
		if err := c.SetDeadline(time.Now().Add(h.spec.Timeout)); err != nil {
			return "", err
		}
		if _, err := io.WriteString(c, line); err != nil {
			return "", err
		}
		return r.ReadString('\n')
	}
	if h.spec.Greeted {
		if err := c.SetReadDeadline(time.Now().Add(h.spec.Timeout)); err != nil {
			return err
		}
		if _, err := r.ReadString('\n'); err != nil {
			return err
		}
	}
	peer, err := exchange("who\n")
	if err != nil {
		return err
	}
	h.mu.Lock()
	h.result.Connected++
	h.result.Running = true
	h.result.Peer = peer
	h.mu.Unlock()
	for n := 0; ; n++ {
		line := fmt.Sprintf("%d %s\n", n, h.spec.Marker)
		back, err := exchange(line)
		if err != nil {
			return err
		}
		if back != line {
			return fmt.Errorf("line %d came back as %q", n, back)
		}
		h.mu.Lock()
		h.result.Echoed++
		h.mu.Unlock()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(h.spec.Every):
		}
	}
}

func (h *hold) snapshot() any {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := h.result
	r.Seconds = time.Since(h.begun).Seconds()
	b, err := json.Marshal(r)
	if err != nil {
		return err.Error()
	}
	return json.RawMessage(b)
}

func (h *hold) failed() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.result.Breaks)
}

func runHold(ctx context.Context, args []string) error {
	var spec holdSpec
	f := flags("hold")
	spec.add(f)
	if _, err := parse(f, args, 0); err != nil {
		return err
	}
	h, err := newHold(spec)
	if err != nil {
		return err
	}
	h.run(ctx)
	if err := printJSON(h.snapshot()); err != nil {
		return err
	}
	if h.failed() > 0 {
		return errFailed
	}
	return nil
}
