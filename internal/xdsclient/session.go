package xdsclient

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"go.uber.org/zap"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// dialError marks a failure before the stream was open.
type dialError struct{ err error }

func (e *dialError) Error() string { return e.err.Error() }
func (e *dialError) Unwrap() error { return e.err }

type stream = grpc.BidiStreamingClient[discovery.DeltaDiscoveryRequest, discovery.DeltaDiscoveryResponse]

// session serves one stream from its dial to its end and reports whether the
// server answered at all.
func (c *Client) session(ctx context.Context) (answered bool, err error) {
	ctx, cancel := context.WithCancel(ctx) // ends the stream with this function
	defer cancel()
	conn, err := c.cfg.Dial(ctx)
	if err != nil {
		return false, &dialError{fmt.Errorf("dial control plane: %w", err)}
	}
	defer conn.Close()
	s, err := discovery.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx, grpc.MaxCallRecvMsgSize(maxMessageBytes))
	if err != nil {
		return false, &dialError{fmt.Errorf("open stream to %s: %w", conn.Target(), err)}
	}
	asked := map[string]map[string]bool{}
	for _, url := range c.types {
		c.forget(url)
		names := c.wanted(url)
		if len(names) == 0 && slices.Contains(c.cfg.OnDemand, url) {
			continue
		}
		asked[url] = setOf(names)
		req := &discovery.DeltaDiscoveryRequest{
			Node: c.cfg.Node, TypeUrl: url, ResourceNamesSubscribe: names, InitialResourceVersions: c.versions(url),
		}
		if err := s.Send(req); err != nil {
			return false, c.streamError(s, "subscribe to "+url, err)
		}
	}
	c.connected()
	s = &sender{stream: s}
	var subscribing sync.WaitGroup
	defer subscribing.Wait()
	defer cancel()
	subscribing.Go(func() { c.subscribeMore(ctx, s, asked) })
	c.log.Info("xds stream open", zap.String("target", conn.Target()))
	for {
		resp, err := s.Recv()
		if err != nil {
			return answered, fmt.Errorf("receive from control plane: %w", err)
		}
		answered = true
		if err := c.handle(s, resp); err != nil {
			return answered, err
		}
	}
}

// sender is a stream on which several goroutines may send.
type sender struct {
	stream
	mu sync.Mutex
}

func (s *sender) Send(r *discovery.DeltaDiscoveryRequest) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stream.Send(r)
}

func setOf(names []string) map[string]bool {
	set := make(map[string]bool, len(names))
	for _, name := range names {
		set[name] = true
	}
	return set
}

// versions copies those that were accepted.
func (c *Client) versions(url string) map[string]string {
	c.applying.Lock()
	defer c.applying.Unlock()
	return maps.Clone(c.accepted[url])
}

// subscribeMore asks for names as they are added, and gives them back, until ctx ends.
// asked are those of each type that have been sent. That the stream is broken shows
// where it is read.
func (c *Client) subscribeMore(ctx context.Context, s stream, asked map[string]map[string]bool) {
	for {
		for _, url := range c.types {
			names := c.wanted(url)
			now := setOf(names)
			req := &discovery.DeltaDiscoveryRequest{Node: c.cfg.Node, TypeUrl: url}
			for _, name := range names {
				if !asked[url][name] {
					req.ResourceNamesSubscribe = append(req.ResourceNamesSubscribe, name)
				}
			}
			for name := range asked[url] {
				if !now[name] {
					req.ResourceNamesUnsubscribe = append(req.ResourceNamesUnsubscribe, name)
				}
			}
			if len(req.ResourceNamesSubscribe)+len(req.ResourceNamesUnsubscribe) > 0 {
				asked[url] = now
				if s.Send(req) != nil {
					return
				}
			}
			c.forget(url)
		}
		select {
		case <-c.wake:
		case <-ctx.Done():
			return
		}
	}
}

// streamError replaces the io.EOF with which Send reports a broken stream by
// the status that broke it.
func (c *Client) streamError(s stream, doing string, err error) error {
	if errors.Is(err, io.EOF) {
		if _, recvErr := s.Recv(); recvErr != nil {
			err = recvErr
		}
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// handle applies one response and acknowledges it.
func (c *Client) handle(s stream, resp *discovery.DeltaDiscoveryResponse) error {
	url := resp.GetTypeUrl()
	handler := c.cfg.Handlers[url]
	if handler == nil {
		c.metrics.messages.WithLabelValues("unknown").Inc()
		c.log.Warn("xds response of a type that was not asked for", zap.String("type", truncate(url, maxNameBytes)))
		return nil
	}
	delta, rejections := checkResponse(resp, url)
	delta.First = c.first(url)
	bytes := 0
	for _, r := range delta.Resources {
		bytes += len(r.Body.GetValue())
	}
	c.metrics.messages.WithLabelValues(url).Inc()
	c.metrics.bytes.WithLabelValues(url).Add(float64(bytes))

	refused := map[string]bool{}
	c.applying.Lock()
	accepted := c.accepted[url]
	for _, r := range handler.Apply(delta) {
		refused[r.Name] = true
		if errors.Is(r.Err, ErrNotWanted) {
			delete(accepted, r.Name)
			continue
		}
		rejections = append(rejections, r)
	}
	for _, name := range delta.Removed {
		if !refused[name] {
			delete(accepted, name)
		}
	}
	for _, r := range delta.Resources {
		// A refused resource keeps the version that is still in force, so that
		// a reconnect brings the newer one again.
		if !refused[r.Name] {
			accepted[r.Name] = r.Version
		}
	}

	held := len(accepted)
	c.applying.Unlock()

	ack := &discovery.DeltaDiscoveryRequest{TypeUrl: url, ResponseNonce: resp.GetNonce()}
	nack := nackMessage(rejections)
	if nack != "" {
		c.metrics.rejected.WithLabelValues(url).Add(float64(len(rejections)))
		c.log.Warn("xds resources refused", zap.String("type", url), zap.Int("refused", len(rejections)),
			zap.Int("applied", len(delta.Resources)+len(delta.Removed)-len(refused)), zap.String("error", nack))
		ack.ErrorDetail = &rpcstatus.Status{Code: int32(codes.InvalidArgument), Message: nack}
	}
	c.record(url, resp.GetNonce(), nack, held)
	if err := s.Send(ack); err != nil {
		return c.streamError(s, "acknowledge "+url, err)
	}
	c.log.Debug("xds response applied", zap.String("type", url), zap.Int("resources", len(delta.Resources)),
		zap.Int("removed", len(delta.Removed)), zap.Int("bytes", proto.Size(resp)))
	return nil
}

// checkResponse sorts out what no Handler should see.
func checkResponse(resp *discovery.DeltaDiscoveryResponse, url string) (Delta, []Rejection) {
	var (
		delta      = Delta{Resources: make([]Resource, 0, len(resp.GetResources()))}
		rejections []Rejection
		seen       = make(map[string]bool, len(resp.GetResources()))
	)
	reject := func(name string, err error) {
		rejections = append(rejections, Rejection{Name: truncate(name, maxNameBytes), Err: err})
	}
	for _, r := range resp.GetResources() {
		name := r.GetName()
		switch {
		case name == "":
			reject("", errors.New("resource without a name"))
		case len(name) > maxNameBytes:
			reject(name, fmt.Errorf("name of %d bytes, at most %d are taken", len(name), maxNameBytes))
		case seen[name]:
			reject(name, errors.New("twice in one response"))
		case r.GetResource().GetTypeUrl() != url:
			reject(name, fmt.Errorf("body of type %q in a response of type %q", truncate(r.GetResource().GetTypeUrl(), maxNameBytes), url))
		case longest(r.GetAliases()) > maxNameBytes:
			reject(name, fmt.Errorf("alias of %d bytes, at most %d are taken", longest(r.GetAliases()), maxNameBytes))
		default:
			seen[name] = true
			delta.Resources = append(delta.Resources, Resource{Name: name, Version: r.GetVersion(), Aliases: r.GetAliases(), Body: r.GetResource()})
		}
	}
	for _, name := range resp.GetRemovedResources() {
		// Changed and removed at once contradict each other; the body wins,
		// since a server that sends one has it.
		if name != "" && len(name) <= maxNameBytes && !seen[name] {
			seen[name] = true
			delta.Removed = append(delta.Removed, name)
		}
	}
	return delta, rejections
}

func longest(names []string) int {
	n := 0
	for _, name := range names {
		n = max(n, len(name))
	}
	return n
}

// nackMessage joins the rejections, bounded; empty when there are none.
func nackMessage(rejections []Rejection) string {
	var b strings.Builder
	for i, r := range rejections {
		part := fmt.Sprintf("%s: %v", r.Name, r.Err)
		if b.Len()+len(part) > maxNackBytes {
			fmt.Fprintf(&b, "; and %d more", len(rejections)-i)
			if i == 0 {
				return truncate(part, maxNackBytes)
			}
			break
		}
		if i > 0 {
			b.WriteString("; ")
		}
		b.WriteString(part)
	}
	return strings.ToValidUTF8(b.String(), "�")
}

func truncate(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "…"
}

// terminationReason maps the end of a session to the metric's label.
func terminationReason(err error) string {
	var dial *dialError
	switch {
	case err == nil || errors.Is(err, io.EOF):
		return reasonComplete
	case errors.As(err, &dial):
		return reasonConnectionError
	}
	switch st, _ := status.FromError(err); {
	case st.Code() == codes.OK:
		return reasonComplete
	case st.Code() == codes.Unavailable && strings.Contains(st.Message(), "GOAWAY"):
		// gRPC gives no other sign of a server that drains.
		return reasonReconnect
	case st.Code() == codes.Aborted:
		return reasonReconnect
	}
	return reasonError
}
