package upstream

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/tulle-mesh/tulle/waypoint/message"
)

// Checker asks an endpoint whether it is well. It returns nil when it is. ctx bounds
// the check.
type Checker interface {
	Check(ctx context.Context, e *Endpoint) error
}

// Health checks every endpoint from time to time. Endpoints take part until a check
// fails: the first one decides at once, later ones when enough agree in a row.
type Health struct {
	Checker Checker
	// Interval between checks: 10 s when 0. Each is put off at random by up to a tenth.
	Interval time.Duration
	// Timeout of one check: 1 s when 0.
	Timeout time.Duration
	// UnhealthyThreshold failed checks in a row leave the endpoint out: 3 when 0.
	UnhealthyThreshold int
	// HealthyThreshold checks in a row that passed bring it back: 2 when 0.
	HealthyThreshold int
}

func (h *Health) validate() error {
	switch {
	case h == nil:
		return nil
	case h.Checker == nil:
		return errors.New("health checks without a checker")
	case h.Interval < 0 || h.Timeout < 0 || h.UnhealthyThreshold < 0 || h.HealthyThreshold < 0:
		return errors.New("health checks: a negative figure")
	}
	return nil
}

func (h Health) withDefaults() Health {
	if h.Interval == 0 {
		h.Interval = 10 * time.Second
	}
	if h.Timeout == 0 {
		h.Timeout = time.Second
	}
	if h.UnhealthyThreshold == 0 {
		h.UnhealthyThreshold = 3
	}
	if h.HealthyThreshold == 0 {
		h.HealthyThreshold = 2
	}
	return h
}

// restartChecks ends a target's checks and begins those that are configured, if any.
// Backend.mu is held.
func (b *Backend) restartChecks(t *Target) {
	t.endChecks()
	h := b.settings.Load().Health
	if h == nil {
		t.failing = false
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	t.stopChecks = cancel
	failing := t.failing
	b.checks.Add(1)
	go func() {
		defer b.checks.Done()
		b.check(ctx, t, h.withDefaults(), failing)
	}()
}

// endChecks ends a target's checks without waiting. Backend.mu is held.
func (t *Target) endChecks() {
	if t.stopChecks != nil {
		t.stopChecks()
		t.stopChecks = nil
	}
}

// setFailing notes what the checks that run in ctx say.
func (b *Backend) setFailing(ctx context.Context, t *Target, failing bool, why error) {
	b.mu.Lock()
	changed := t.failing != failing && ctx.Err() == nil // others took over, or the endpoint is gone
	if changed {
		now := b.now()
		t.failing = failing
		if !failing {
			b.warm(t, now)
		}
		b.rebuild(now)
	}
	b.mu.Unlock()
	log := b.settings.Load().Log
	switch {
	case !changed:
	case failing:
		log.Info("endpoint fails its checks", zap.String("backend", b.Name()), zap.Stringer("endpoint", t.Endpoint()), zap.Error(why))
	default:
		log.Info("endpoint passes its checks again", zap.String("backend", b.Name()), zap.Stringer("endpoint", t.Endpoint()))
	}
}

// check checks one target until ctx ends.
func (b *Backend) check(ctx context.Context, t *Target, h Health, failing bool) {
	jitter := func(d time.Duration) time.Duration { return d + rand.N(d/10+1) }
	// Many targets that come together are not all asked in the same moment.
	timer := time.NewTimer(rand.N(h.Interval/10 + 1))
	defer timer.Stop()
	first, row := true, 0
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		once, cancel := context.WithTimeout(ctx, h.Timeout)
		err := h.Checker.Check(once, t.Endpoint())
		cancel()
		if ctx.Err() != nil {
			return
		}
		if (err != nil) == failing {
			row = 0
		} else {
			row++
		}
		enough := h.UnhealthyThreshold
		if failing {
			enough = h.HealthyThreshold
		}
		if row > 0 && (first || row >= enough) {
			failing, row = !failing, 0
			b.setFailing(ctx, t, failing, err)
		}
		first = false
		timer.Reset(jitter(h.Interval))
	}
}

// TCPChecker is passed by an endpoint that takes a connection.
type TCPChecker struct{ Connector Connector }

// Connector connects to endpoints for bytes. An error means that the application has
// seen nothing.
type Connector interface {
	Connect(ctx context.Context, e *Endpoint) (net.Conn, error)
}

// Check connects.
func (c TCPChecker) Check(ctx context.Context, e *Endpoint) error {
	conn, err := c.Connector.Connect(ctx, e)
	if err != nil {
		return err
	}
	return conn.Close()
}

// HTTPChecker is passed by an endpoint that answers a request with a status from Low
// to High.
type HTTPChecker struct {
	Dialer   Dialer
	Protocol Protocol
	// Method is GET when empty, Path "/".
	Method, Path string
	// Authority is the endpoint's address when empty.
	Authority string
	Header    message.Header
	// Low and High are 200 and 299 when both are 0 and there are no Codes.
	Low, High int
	// Codes are statuses besides those from Low to High.
	Codes StatusSet
}

// Check sends the request on a connection of its own, so that a pool which has none
// to spare does not make an endpoint look ill.
func (c HTTPChecker) Check(ctx context.Context, e *Endpoint) error {
	r := &message.Request{
		Method: orElse(c.Method, "GET"), Scheme: "http", Authority: orElse(c.Authority, e.String()),
		Header: c.Header.Clone(),
	}
	r.Path, r.Query, r.HasQuery = strings.Cut(orElse(c.Path, "/"), "?")
	low, high := c.Low, c.High
	if low == 0 && high == 0 && c.Codes == (StatusSet{}) {
		low, high = 200, 299
	}
	return ask(ctx, c.Dialer, e, c.Protocol, r, nil, func(p *message.Response, _ message.Body) error {
		if (p.Status < low || p.Status > high) && !c.Codes.Has(p.Status) {
			return fmt.Errorf("status %d", p.Status)
		}
		return nil
	})
}

// GRPCChecker is passed by an endpoint whose grpc.health.v1.Health service says
// SERVING.
type GRPCChecker struct {
	Dialer Dialer
	// Service is asked about; empty is the server as a whole.
	Service string
	// Authority is the endpoint's address when empty.
	Authority string
}

// Check calls grpc.health.v1.Health/Check.
func (c GRPCChecker) Check(ctx context.Context, e *Endpoint) error {
	r := &message.Request{
		Method: "POST", Scheme: "http", Authority: orElse(c.Authority, e.String()), Path: "/grpc.health.v1.Health/Check",
		Header: message.Header{
			{Name: "content-type", Value: "application/grpc"}, {Name: "te", Value: "trailers"}, {Name: "user-agent", Value: "tulle-health"},
		},
	}
	body := healthRequest(c.Service)
	r.Length = int64(len(body))
	return ask(ctx, c.Dialer, e, HTTP2, r, body, func(p *message.Response, b message.Body) error {
		if p.Status != 200 {
			return fmt.Errorf("status %d", p.Status)
		}
		content, trailer, err := readAll(b)
		if err != nil {
			return err
		}
		status, ok := trailer.Lookup("grpc-status")
		if !ok {
			status, ok = p.Header.Lookup("grpc-status")
		}
		switch {
		case !ok:
			return errors.New("no grpc-status")
		case status != "0":
			return fmt.Errorf("grpc-status %s", clip(status))
		}
		return readHealth(content)
	})
}

// ask sends one request on a connection of its own and judges the response.
func ask(ctx context.Context, d Dialer, e *Endpoint, p Protocol, r *message.Request, body []byte,
	judge func(*message.Response, message.Body) error,
) error {
	client, err := d.Dial(ctx, e, p)
	if err != nil {
		return err
	}
	defer client.Close()
	// What reads and writes does not know ctx; the end of the connection ends it.
	stop := context.AfterFunc(ctx, func() { _ = client.Close() })
	defer stop()
	x, err := client.Open(ctx, r, len(body) == 0)
	if err != nil {
		return err
	}
	defer x.Close()
	if len(body) > 0 {
		if _, err := x.Write(body); err != nil {
			return err
		}
		if err := x.CloseWrite(nil); err != nil {
			return err
		}
	}
	response, err := x.Response(ctx)
	for err == nil && response.Interim() {
		response, err = x.Response(ctx)
	}
	if err != nil {
		return err
	}
	return judge(response, x.Body())
}

func orElse(s, def string) string {
	if s == "" {
		return def
	}
	return s
}

// clip shortens what a peer sent for use in an error.
func clip(s string) string {
	if len(s) > 32 {
		return s[:32] + "…"
	}
	return s
}
