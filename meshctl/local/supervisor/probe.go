package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/tulle-mesh/tulle/meshctl/local/process"
)

// probe runs the container's readiness probe until ctx ends. It starts inside
// the pod, so that it needs no exception in the pod's redirection.
func (c *container) probe(ctx context.Context, env []string) {
	p := c.spec.ReadinessProbe
	period, timeout := probePeriod, time.Second
	if p.PeriodSeconds > 0 {
		period = time.Duration(p.PeriodSeconds) * time.Second
	}
	if p.TimeoutSeconds > 0 {
		timeout = time.Duration(p.TimeoutSeconds) * time.Second
	}
	failures, limit := 0, 3
	if p.FailureThreshold > 0 {
		limit = int(p.FailureThreshold)
	}
	delay := time.Duration(p.InitialDelaySeconds) * time.Second
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(delay):
		}
		question, cancel := context.WithTimeout(ctx, timeout)
		err := c.ask(question, p, env)
		cancel()
		if ctx.Err() != nil {
			return
		}
		c.mu.Lock()
		ready := c.ready
		c.mu.Unlock()
		if err == nil {
			failures = 0
			c.setReady(nil)
		} else if failures++; !ready || failures >= limit {
			c.setReady(err)
		}
		delay = period
		if !ready && err != nil {
			delay = min(period, probePeriod) // while it starts, look often
		}
	}
}

func (c *container) ask(ctx context.Context, p *corev1.Probe, env []string) error {
	switch {
	case p.TCPSocket != nil:
		address, err := c.address(p.TCPSocket.Host, p.TCPSocket.Port)
		if err != nil {
			return err
		}
		var conn net.Conn
		err = c.pod.ns.Do(func() error {
			conn, err = new(net.Dialer).DialContext(ctx, "tcp", address)
			return err
		})
		if err != nil {
			return fmt.Errorf("readiness probe: %w", err)
		}
		return conn.Close()
	case p.HTTPGet != nil:
		address, err := c.address(p.HTTPGet.Host, p.HTTPGet.Port)
		if err != nil {
			return err
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+p.HTTPGet.Path, nil)
		if err != nil {
			return fmt.Errorf("readiness probe: %w", err)
		}
		for _, h := range p.HTTPGet.HTTPHeaders {
			req.Header.Set(h.Name, h.Value)
		}
		res, err := clientIn(c.pod.ns).Do(req)
		if err != nil {
			return fmt.Errorf("readiness probe: %w", err)
		}
		io.Copy(io.Discard, io.LimitReader(res.Body, 1<<20))
		res.Body.Close()
		if res.StatusCode < 200 || res.StatusCode >= 400 {
			return fmt.Errorf("readiness probe: GET %s: %s", req.URL, res.Status)
		}
		return nil
	case p.Exec != nil:
		proc, err := c.pod.s.reaper.Start(process.Spec{Argv: p.Exec.Command, Env: env, Dir: c.dir(), NS: c.pod.ns, Sandbox: c.pod.sandbox(c.spec, true)})
		if err != nil {
			return fmt.Errorf("readiness probe: %w", err)
		}
		select {
		case <-proc.Done():
		case <-ctx.Done():
			proc.Stop(0)
			return errors.New("readiness probe: timed out")
		}
		if exit := proc.Exit(); exit.Code != 0 {
			return fmt.Errorf("readiness probe: %v", exit)
		}
	}
	return nil
}

func (c *container) address(host string, port intstr.IntOrString) (string, error) {
	if host == "" {
		host = c.pod.current().IPv4.String()
	}
	number := int(port.IntVal)
	if port.Type == intstr.String {
		for _, p := range c.spec.Ports {
			if p.Name == port.StrVal {
				number = int(p.ContainerPort)
			}
		}
	}
	if number == 0 {
		return "", fmt.Errorf("readiness probe: no port %q", port.String())
	}
	return net.JoinHostPort(host, fmt.Sprint(number)), nil
}
