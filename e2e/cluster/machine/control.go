package machine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"time"
)

// Operations of the control socket.
const (
	opBooted = "booted"
	opStart  = "start"
	opStop   = "stop"
	opImport = "import"
	opStatus = "status"
)

type request struct {
	Op string `json:"op"`
	// Arg is a service's name or an archive's path.
	Arg string `json:"arg,omitempty"`
}

type response struct {
	Error    string         `json:"error,omitempty"`
	Services map[string]int `json:"services,omitempty"`
}

// serve answers one request per connection.
func (n *node) serve(ln net.Listener) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			var req request
			if err := json.NewDecoder(c).Decode(&req); err != nil {
				return
			}
			resp, err := n.handle(req)
			if err != nil {
				resp.Error = err.Error()
			}
			_ = json.NewEncoder(c).Encode(resp)
		}()
	}
}

func (n *node) handle(req request) (response, error) {
	switch req.Op {
	case opBooted:
		<-n.booted
		return response{}, n.bootErr
	case opStatus:
		r := response{Services: map[string]int{}}
		for name, s := range n.services {
			r.Services[name] = s.running()
		}
		return r, nil
	case opImport:
		return response{}, n.importImage(req.Arg)
	case opStart, opStop:
		s, ok := n.services[req.Arg]
		if !ok {
			return response{}, fmt.Errorf("no service %q; the services are %s, %s, %s", req.Arg, Containerd, Kubelet, KubeProxy)
		}
		if req.Op == opStart {
			return response{}, s.start()
		}
		return response{}, s.stop()
	}
	return response{}, fmt.Errorf("unknown operation %q", req.Op)
}

// Control speaks to the PID 1 of a node from the host.
type Control struct{ socket string }

// NewControl is of the node whose directory is dir; it may not run yet.
func NewControl(dir string) Control { return Control{filepath.Join(dir, controlSocket)} }

// AwaitBoot blocks until the node's services are started, or tells why they are not.
func (c Control) AwaitBoot(ctx context.Context) error {
	// The socket appears a moment after the process.
	for {
		_, err := c.call(ctx, request{Op: opBooted})
		var op *net.OpError
		if err == nil || !errors.As(err, &op) || op.Op != "dial" || ctx.Err() != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Start starts a service that was stopped.
func (c Control) Start(ctx context.Context, service string) error {
	_, err := c.call(ctx, request{Op: opStart, Arg: service})
	return err
}

// Stop ends a service until Start; containers go on running.
func (c Control) Stop(ctx context.Context, service string) error {
	_, err := c.call(ctx, request{Op: opStop, Arg: service})
	return err
}

// Import loads an OCI archive, given by its absolute path on the host.
func (c Control) Import(ctx context.Context, archive string) error {
	_, err := c.call(ctx, request{Op: opImport, Arg: archive})
	return err
}

// Services returns the process id, within the node, of each service; 0 is one that does not run.
func (c Control) Services(ctx context.Context) (map[string]int, error) {
	r, err := c.call(ctx, request{Op: opStatus})
	return r.Services, err
}

func (c Control) call(ctx context.Context, req request) (response, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", c.socket)
	if err != nil {
		return response{}, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(time.Now()) })() //nolint:errcheck
	if err := json.NewEncoder(conn).Encode(req); err != nil {
		return response{}, err
	}
	var resp response
	if err := json.NewDecoder(conn).Decode(&resp); err != nil {
		return response{}, errors.Join(fmt.Errorf("node does not answer %q: %w", req.Op, err), ctx.Err())
	}
	if resp.Error != "" {
		return resp, errors.New(resp.Error)
	}
	return resp, nil
}
