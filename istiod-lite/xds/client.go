package xds

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

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
	responses chan *discovery.DeltaDiscoveryResponse
	failed    chan error    // why sending ended
	wake      chan struct{} // something became dirty
	done      chan struct{} // closed when serve returns

	mu         sync.Mutex
	subscribed map[string]*watch // the same watches, for mark and Status
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
		responses:  make(chan *discovery.DeltaDiscoveryResponse, len(shortTypes)),
		failed:     make(chan error, 1),
		wake:       make(chan struct{}, 1),
		done:       make(chan struct{}),
		subscribed: map[string]*watch{},
		status:     ClientStatus{ID: id, Account: account, Address: address, Connected: time.Now()},
	}
}

// mark notes what changed, if the client subscribes to it. Publish calls it.
func (c *client) mark(change snapshot.Change, first bool, since time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	marked := first
	for url, deltas := range change.Deltas {
		w := c.subscribed[url]
		if w == nil {
			continue
		}
		if len(w.dirty) == 0 {
			w.dirtySince = since
		}
		for _, d := range deltas {
			w.dirty[d.Name] = struct{}{}
		}
		marked = true
	}
	if marked {
		select {
		case c.wake <- struct{}{}:
		default:
		}
	}
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
	default:
		c.log.Warn("xds client cut off", zap.Error(err))
	}
	return err
}

var errClosing = status.Error(codes.Unavailable, "the control plane is shutting down")

func (c *client) run() error {
	overdue := time.NewTimer(0)
	defer overdue.Stop()
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

func (c *client) receive() {
	defer c.server.workers.Done()
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

func (c *client) send() {
	defer c.server.workers.Done()
	for {
		select {
		case resp := <-c.responses:
			if err := c.stream.Send(resp); err != nil {
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
		w, first = &watch{url: url, keys: map[string]bool{}, force: map[string]bool{}, absent: map[string]bool{}, dirty: map[string]struct{}{}}, true
		c.watches[url] = w
	}
	if nonce := req.GetResponseNonce(); nonce != "" && !first {
		c.acknowledge(w, short, nonce, req)
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
// in an order in which a proxy never holds a workload that lists a policy which
// it does not have: it would refuse the workload's connections. So policies go
// before workloads, and those that are gone after them.
func (c *client) push() {
	if c.server.current.Load() == nil {
		return // the first state is still to come; proxies wait for it
	}
	policies, addresses := c.watches[snapshot.AuthorizationType], c.watches[snapshot.AddressType]
	blocked := policies != nil && policies.nonce != "" && c.due(policies)
	c.pushType(policies, c.due(addresses))
	if !blocked {
		c.pushType(addresses, false)
	}
	c.pushType(policies, c.due(addresses))
}

// due reports whether a type has something that is not sent yet.
func (c *client) due(w *watch) bool {
	if w == nil {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(w.dirty) > 0 || w.owes()
}

// pushType sends what the client lacks of one type, unless a response of it is
// under way. With keep, what is gone stays for a later call.
func (c *client) pushType(w *watch, keep bool) {
	if w == nil || w.nonce != "" {
		return
	}
	// The names first, the snapshot after: a change between the two is then
	// sent now and found to be known later, never missed.
	c.mu.Lock()
	var dirty map[string]struct{}
	since := w.dirtySince
	if len(w.dirty) > 0 {
		dirty, w.dirty, w.dirtySince = w.dirty, map[string]struct{}{}, time.Time{}
	}
	c.mu.Unlock()
	if len(dirty) == 0 && !w.owes() {
		return
	}
	short := shortTypes[w.url]
	snap := c.server.current.Load()
	started := time.Now()
	resp, left := w.next(snap.Sets[w.url], dirty, keep)
	c.server.metrics.pushTime.WithLabelValues(short).Observe(time.Since(started).Seconds())
	version := strconv.FormatUint(snap.Serial, 10)
	c.mu.Lock()
	if len(left) > 0 && len(w.dirty) == 0 {
		w.dirtySince = since
	}
	for name := range left {
		w.dirty[name] = struct{}{}
	}
	w.status.Resources = len(w.known)
	if resp == nil {
		if len(left) == 0 {
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

	resp.SystemVersionInfo, resp.Nonce = version, w.nonce
	c.server.metrics.pushes.WithLabelValues(short).Inc()
	c.server.metrics.resources.WithLabelValues(short, "changed").Add(float64(len(resp.Resources)))
	c.server.metrics.resources.WithLabelValues(short, "removed").Add(float64(len(resp.RemovedResources)))
	c.server.metrics.configSize.WithLabelValues(short).Observe(float64(proto.Size(resp)))
	c.log.Debug("xds push", zap.String("type", w.url), zap.Int("resources", len(resp.Resources)), zap.Int("removed", len(resp.RemovedResources)), zap.Int("left", len(left)))
	c.responses <- resp // has room for one of each type
}
