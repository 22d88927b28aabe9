package xds

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"sync"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tulle-mesh/tulle/istiod-lite/snapshot"
)

type deltaStream = grpc.BidiStreamingServer[discovery.DeltaDiscoveryRequest, discovery.DeltaDiscoveryResponse]

// client is one stream.
type client struct {
	server  *Server
	stream  deltaStream
	log     *zap.Logger
	watches map[string]*watch // by type, of the stream's goroutine
	nonces  uint64

	requests  chan *discovery.DeltaDiscoveryRequest
	received  chan error // why receiving ended
	responses chan *response
	failed    chan error    // why sending ended
	wake      chan struct{} // something is pending
	done      chan struct{} // closed when serve returns
	begun     chan struct{} // closed when the client has its turn to start
	turn      chan struct{} // holds one while it has it
	expiry    time.Time     // of the caller's token; zero for none

	mu         sync.Mutex
	subscribed map[string]*watch  // the same watches, for mark and Status
	latest     *snapshot.Snapshot // of which mark has told everything
	status     ClientStatus
}

func newClient(s *Server, stream deltaStream, id uint64, account, address string) *client {
	return &client{
		server:     s,
		stream:     stream,
		log:        s.log.With(zap.Uint64("stream", id), zap.String("account", account), zap.String("peer", address)),
		watches:    map[string]*watch{},
		requests:   make(chan *discovery.DeltaDiscoveryRequest),
		received:   make(chan error, 1),
		responses:  make(chan *response, len(shortTypes)),
		failed:     make(chan error, 1),
		wake:       make(chan struct{}, 1),
		done:       make(chan struct{}),
		begun:      make(chan struct{}),
		turn:       make(chan struct{}, 1),
		subscribed: map[string]*watch{},
		status:     ClientStatus{ID: id, Account: account, Address: address, Connected: time.Now()},
	}
}

// mark notes what a publication changed, if the client subscribes to it. The
// server calls it under its own lock, so that latest and the marks agree.
func (c *client) mark(snap *snapshot.Snapshot, updates map[string]*update, since, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	marked := c.latest == nil // it waits for the first state
	c.latest = snap
	for url, u := range updates {
		if w := c.subscribed[url]; w != nil {
			w.marked.add(u, since, now)
			marked = true
		}
	}
	if marked {
		select {
		case c.wake <- struct{}{}:
		default:
		}
	}
}

// collect takes over what was marked and returns the state up to which it was.
func (c *client) collect() *snapshot.Snapshot {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, w := range c.watches {
		w.todo.merge(&w.marked)
		w.status.PendingNames = w.todo.count()
	}
	return c.latest
}

// serve runs the stream's state. The receiving and the sending goroutine end
// once it has returned, for gRPC then fails what they wait for.
func (c *client) serve() error {
	defer close(c.done)
	go c.receive()
	go c.send()
	c.log.Info("xds client connected")
	err := c.run()
	switch {
	case err == nil:
		c.log.Info("xds client left")
	case errors.Is(err, errClosing):
		c.log.Info("xds client sent away")
	case errors.Is(err, errExpired):
		c.log.Info("xds client must come again: its token has expired")
		return nil // to the client it is a stream that has come to its end
	default:
		c.log.Warn("xds client cut off", zap.Error(err))
	}
	return err
}

var (
	errClosing = status.Error(codes.Unavailable, "the control plane is shutting down")
	errExpired = errors.New("the caller's token has expired")
)

func (c *client) run() error {
	overdue := time.NewTimer(0)
	defer overdue.Stop()
	turn := time.NewTimer(0)
	turn.Stop()
	defer turn.Stop()
	begun := c.begun
	var expired <-chan time.Time
	if !c.expiry.IsZero() {
		timer := time.NewTimer(time.Until(c.expiry))
		defer timer.Stop()
		expired = timer.C
	}
	for {
		// gRPC takes a whole response into its buffer when the client's window is
		// shut, so only the acknowledgement tells that it has left.
		if deadline := c.deadline(); deadline.IsZero() {
			overdue.Stop()
		} else {
			overdue.Reset(time.Until(deadline))
		}
		select {
		case req := <-c.requests:
			if err := c.request(req); err != nil {
				return err
			}
		case err := <-c.received:
			if errors.Is(err, io.EOF) || status.Code(err) == codes.Canceled {
				return nil
			}
			return err
		case err := <-c.failed:
			return err
		case <-overdue.C:
			if deadline := c.deadline(); !deadline.IsZero() && !time.Now().Before(deadline) {
				c.server.metrics.timeouts.Inc()
				if c.server.cfg.Disconnect != nil {
					c.server.cfg.Disconnect(c.stream.Context())
				}
				return status.Errorf(codes.DeadlineExceeded, "response not acknowledged within %v", c.server.cfg.SendTimeout)
			}
		case <-c.wake:
		case <-begun:
			begun = nil
			turn.Reset(maxTurn)
		case <-turn.C:
			c.started()
		case <-expired:
			return errExpired
		case <-c.server.closing:
			return errClosing
		case <-c.stream.Context().Done():
			return nil
		}
		c.push()
	}
}

// deadline is when the oldest response under way must have been acknowledged,
// zero while none is.
func (c *client) deadline() time.Time {
	var oldest time.Time
	for _, w := range c.watches {
		if w.nonce != "" && (oldest.IsZero() || w.sent.Before(oldest)) {
			oldest = w.sent
		}
	}
	if oldest.IsZero() {
		return oldest
	}
	return oldest.Add(c.server.cfg.SendTimeout)
}

// receive reads requests, from the moment on when there is a state to answer
// them from: a proxy that comes again lists all that it holds, and lists of
// many proxies must not wait here together.
func (c *client) receive() {
	defer c.server.workers.Done()
	if !c.start() {
		return
	}
	defer c.started()
	for {
		req, err := c.stream.Recv()
		if err != nil {
			c.received <- err
			return
		}
		select {
		case c.requests <- req:
		case <-c.done:
			return
		}
	}
}

// start waits for the first state and for a turn, which started ends.
func (c *client) start() bool {
	select {
	case <-c.server.published:
	case <-c.done:
		return false
	}
	select {
	case c.server.turns <- struct{}{}:
	case <-c.done:
		return false
	}
	c.turn <- struct{}{}
	close(c.begun)
	return true
}

// started ends the client's turn, if it has one.
func (c *client) started() {
	select {
	case <-c.turn:
		<-c.server.turns
	default:
	}
}

func (c *client) send() {
	defer c.server.workers.Done()
	for {
		select {
		case resp := <-c.responses:
			if err := c.stream.SendMsg(resp); err != nil {
				c.failed <- err
				return
			}
		case <-c.done:
			return
		}
	}
}

// request takes one request: a subscription, an acknowledgement, or both.
func (c *client) request(req *discovery.DeltaDiscoveryRequest) error {
	if node := req.GetNode(); node.GetId() != "" {
		c.mu.Lock()
		if c.status.Node == "" {
			c.status.Node = shorten(node.GetId(), maxNameBytes)
			c.status.Machine = shorten(node.GetMetadata().GetFields()["NODE_NAME"].GetStringValue(), maxNameBytes)
			c.log = c.log.With(zap.String("node", c.status.Node))
		}
		c.mu.Unlock()
	}
	url := req.GetTypeUrl()
	short, ok := shortTypes[url]
	if !ok {
		// A newer proxy may ask for more than there is here; it waits for that.
		c.log.Warn("xds subscription to an unknown type", zap.String("type", shorten(url, maxNameBytes)))
		return nil
	}
	w, first := c.watches[url], false
	if w == nil {
		w, first = newWatch(url), true
		c.watches[url] = w
	}
	if nonce := req.GetResponseNonce(); nonce != "" && !first {
		c.acknowledge(w, short, nonce, req)
	}
	if err := c.permit(req, first); err != nil {
		c.server.metrics.refused.Inc()
		return err
	}
	if err := w.subscribe(req, first); err != nil {
		return status.Errorf(codes.InvalidArgument, "%s: %v", url, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.subscribed[url] = w
	w.status.Wildcard, w.status.Keys = w.wildcard, len(w.keys)
	return nil
}

// permit refuses a subscription to what is not the account's to know.
func (c *client) permit(req *discovery.DeltaDiscoveryRequest, first bool) error {
	names := req.GetResourceNamesSubscribe()
	if first && len(names) == 0 {
		names = []string{"*"} // the protocol's first form
	}
	if len(names) == 0 {
		return nil
	}
	scope := Scope{Everything: true}
	if c.server.cfg.Scope != nil {
		scope = c.server.cfg.Scope(c.status.Account)
	}
	for _, name := range names {
		if name == "*" && c.passing(req) {
			continue
		}
		if err := scope.permits(req.GetTypeUrl(), name); err != nil {
			return status.Errorf(codes.PermissionDenied, "%s %s: %v", shorten(req.GetTypeUrl(), maxNameBytes), shorten(name, maxNameBytes), err)
		}
	}
	return nil
}

// passing reports whether a request asks for everything only to take it back at
// once, which is how Istio's proxies begin to ask on demand.
func (c *client) passing(req *discovery.DeltaDiscoveryRequest) bool {
	return slices.Contains(req.GetResourceNamesUnsubscribe(), "*")
}

func (c *client) acknowledge(w *watch, short, nonce string, req *discovery.DeltaDiscoveryRequest) {
	if nonce != w.nonce {
		c.server.metrics.expired.WithLabelValues(short).Inc()
		c.log.Debug("xds acknowledgement of an old response", zap.String("type", w.url), zap.String("nonce", shorten(nonce, 64)))
		return
	}
	w.nonce = ""
	nack := ""
	if detail := req.GetErrorDetail(); detail != nil {
		nack = shorten(detail.GetMessage(), maxErrorBytes)
		if nack == "" {
			nack = fmt.Sprintf("code %d without a message", detail.GetCode())
		}
		c.server.metrics.rejects.WithLabelValues(short).Inc()
		c.log.Warn("xds response refused by a proxy", zap.String("type", w.url), zap.String("nonce", nonce), zap.String("error", nack))
	} else if !w.since.IsZero() {
		c.server.metrics.convergence.Observe(time.Since(w.since).Seconds())
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	st := &w.status
	st.AckedNonce, st.AckedAt, st.LastNack = nonce, time.Now(), nack
	if nack == "" {
		st.AckedVersion = st.SentVersion
		st.Acks++
	} else {
		st.Nacks++
	}
}

// push sends, for each type without a response under way, what the client lacks,
// in an order in which a proxy never holds a workload or service that lists a
// policy which it does not have: it would refuse the connections there.
func (c *client) push() {
	snap := c.collect()
	if snap == nil {
		return // the first state is still to come; proxies wait for it
	}
	addresses, services := c.watches[snapshot.AddressType], c.watches[snapshot.WaypointServiceType]
	c.pushBefore(snap, addresses, c.watches[snapshot.AuthorizationType])
	c.pushBefore(snap, services, c.watches[snapshot.WaypointPolicyType], c.watches[snapshot.WaypointAuthenticationType],
		c.watches[snapshot.WaypointRateLimitType], c.watches[snapshot.WaypointDestinationType])
	c.pushType(snap, c.watches[snapshot.WaypointTelemetryType], false)
	if addresses != nil && !addresses.full || services != nil && !services.full {
		c.started()
	}
}

// pushBefore sends policies before what lists them, and those that are gone after
// that.
func (c *client) pushBefore(snap *snapshot.Snapshot, listing *watch, policies ...*watch) {
	blocked := false
	for _, w := range policies {
		blocked = blocked || w != nil && w.nonce != "" && w.due()
		c.pushType(snap, w, listing.due())
	}
	if !blocked {
		c.pushType(snap, listing, false)
	}
	for _, w := range policies {
		c.pushType(snap, w, listing.due())
	}
}

// pushType sends what the client lacks of one type, unless a response of it is
// under way. With keep, what is gone stays for a later call.
func (c *client) pushType(snap *snapshot.Snapshot, w *watch, keep bool) {
	if !w.due() || w.nonce != "" {
		return
	}
	short := shortTypes[w.url]
	started, since, queued := time.Now(), w.todo.since, w.todo.queued
	b := w.next(snap.Sets[w.url], keep, c.server.whole)
	c.server.metrics.pushTime.WithLabelValues(short).Observe(time.Since(started).Seconds())
	version := strconv.FormatUint(snap.Serial, 10)
	c.mu.Lock()
	w.status.Resources, w.status.PendingNames = w.known.len(), w.todo.count()
	if b == nil {
		if w.todo.empty() {
			// Nothing of the change concerns this client: it is up to date.
			w.status.SentVersion, w.status.AckedVersion = version, version
		}
		c.mu.Unlock()
		return
	}
	c.nonces++
	w.nonce = strconv.FormatUint(c.nonces, 10)
	w.since, w.sent = since, started
	w.status.SentVersion, w.status.SentNonce, w.status.SentAt = version, w.nonce, started
	w.status.Responses++
	c.mu.Unlock()

	resp := &response{url: w.url, version: version, nonce: w.nonce, body: b}
	if !queued.IsZero() {
		c.server.metrics.queueTime.Observe(started.Sub(queued).Seconds())
	}
	c.server.metrics.pushes.WithLabelValues(short).Inc()
	c.server.metrics.resources.WithLabelValues(short, "changed").Add(float64(b.resources))
	c.server.metrics.resources.WithLabelValues(short, "removed").Add(float64(b.removed))
	c.server.metrics.configSize.WithLabelValues(short).Observe(float64(resp.size()))
	c.server.metrics.bytes.WithLabelValues(short).Add(float64(resp.size()))
	c.log.Debug("xds push", zap.String("type", w.url), zap.Int("resources", b.resources), zap.Int("removed", b.removed), zap.Int("left", w.todo.count()))
	c.responses <- resp // has room for one of each type
}
