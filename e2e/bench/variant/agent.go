package variant

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strconv"
	"time"

	"github.com/tulle-mesh/tulle/e2e/bench/topology"
)

// podRequest is what the node agent wants to know of a pod.
type podRequest struct {
	Name           string `json:"name"`
	Namespace      string `json:"namespace"`
	ServiceAccount string `json:"serviceAccount"`
	NetnsPath      string `json:"netnsPath"`
	Strict         bool   `json:"strict"`
}

// retryPause is the time between two looks at what is still starting.
const retryPause = 100 * time.Millisecond

// await repeats f until it succeeds or ctx ends.
func await(ctx context.Context, what string, f func() error) error {
	for {
		err := f()
		if err == nil {
			return nil
		}
		select {
		case <-time.After(retryPause):
		case <-ctx.Done():
			return fmt.Errorf("%s: %w (%w)", what, err, context.Cause(ctx))
		}
	}
}

// enrol puts a pod into the mesh through the agent's socket; it waits for an agent that is starting.
func enrol(ctx context.Context, socket, uid string, pod podRequest) error {
	body, err := json.Marshal(pod)
	if err != nil {
		return err
	}
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}
	return await(ctx, "node agent", func() error {
		req, err := http.NewRequestWithContext(ctx, http.MethodPut, "http://agent/v1/pods/"+uid, bytes.NewReader(body))
		if err != nil {
			return err
		}
		req.Header.Set("Content-Type", "application/json")
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode/100 == 2 {
			return nil
		}
		reason, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
		return fmt.Errorf("%s: %s", resp.Status, bytes.TrimSpace(reason))
	})
}

// goroutineTotal is the first line of the profile in text form.
var goroutineTotal = regexp.MustCompile(`^goroutine profile: total (\d+)\n`)

// goroutines asks the admin port of the ztunnel in ns.
func goroutines(ns *topology.Namespace) (int, error) {
	client := &http.Client{Timeout: 10 * time.Second, Transport: dialIn(ns)}
	resp, err := client.Get("http://127.0.0.1:15000/debug/pprof/goroutine?debug=1")
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 16<<20))
	if err != nil {
		return 0, err
	}
	m := goroutineTotal.FindSubmatch(b)
	if m == nil {
		return 0, fmt.Errorf("no goroutine profile in the answer (%s)", resp.Status)
	}
	return strconv.Atoi(string(m[1]))
}

// dialIn connects inside a namespace.
func dialIn(ns *topology.Namespace) *http.Transport {
	return &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, address string) (c net.Conn, err error) {
			err = ns.Do(func() error {
				c, err = new(net.Dialer).DialContext(ctx, network, address)
				return err
			})
			return c, err
		},
	}
}
