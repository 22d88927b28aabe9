package xds

import (
	"cmp"
	"slices"
	"time"
)

// ClientStatus is one connected proxy, for /debug/syncz.
type ClientStatus struct {
	// ID numbers the streams of this process.
	ID uint64 `json:"id"`
	// Node is the id that the proxy gives itself, Machine the node it serves.
	Node    string `json:"node"`
	Machine string `json:"machine,omitempty"`
	// Account is what its token proves, as namespace/name.
	Account   string    `json:"account"`
	Address   string    `json:"address"`
	Connected time.Time `json:"connected"`
	// Types holds the subscriptions by type URL.
	Types map[string]WatchStatus `json:"types"`
}

// Sync states of a subscription.
const (
	Synced  = "SYNCED"   // everything was sent and acknowledged
	Pending = "PENDING"  // a response is under way or something is still to be sent
	Nacked  = "NACKED"   // the last response was refused
	NotSent = "NOT SENT" // there is no state to serve yet
)

// WatchStatus is the state of one subscription.
type WatchStatus struct {
	// State is one of Synced, Pending, Nacked and NotSent.
	State string `json:"state"`
	// Wildcard is true for a subscription to everything; Keys counts those
	// asked for on demand.
	Wildcard bool `json:"wildcard"`
	Keys     int  `json:"keys,omitempty"`
	// Resources counts what the proxy holds, as far as it was sent.
	Resources int `json:"resources"`
	// PendingNames counts the names that changed and are not sent yet.
	PendingNames int `json:"pendingNames"`
	// SentVersion and AckedVersion are serials of snapshots of this process.
	SentVersion  string    `json:"sentVersion,omitempty"`
	SentNonce    string    `json:"sentNonce,omitempty"`
	SentAt       time.Time `json:"sentAt,omitzero"`
	AckedVersion string    `json:"ackedVersion,omitempty"`
	AckedNonce   string    `json:"ackedNonce,omitempty"`
	AckedAt      time.Time `json:"ackedAt,omitzero"`
	// LastNack is why the proxy refused the last response; empty if it did not.
	LastNack  string `json:"lastNack,omitempty"`
	Responses uint64 `json:"responses"`
	Acks      uint64 `json:"acks"`
	Nacks     uint64 `json:"nacks"`
}

// Status returns the connected proxies in the order in which they came.
func (s *Server) Status() []ClientStatus {
	s.mu.Lock()
	clients := make([]*client, 0, len(s.clients))
	for c := range s.clients {
		clients = append(clients, c)
	}
	s.mu.Unlock()
	out := make([]ClientStatus, 0, len(clients))
	for _, c := range clients {
		out = append(out, c.snapshotStatus())
	}
	slices.SortFunc(out, func(a, b ClientStatus) int { return cmp.Compare(a.ID, b.ID) })
	return out
}

func (c *client) snapshotStatus() ClientStatus {
	c.mu.Lock()
	defer c.mu.Unlock()
	st := c.status
	st.Types = make(map[string]WatchStatus, len(c.subscribed))
	for url, w := range c.subscribed {
		ws := w.status
		ws.PendingNames += w.marked.count()
		switch {
		case ws.SentVersion == "":
			ws.State = NotSent
		case ws.SentNonce != ws.AckedNonce || ws.PendingNames > 0:
			ws.State = Pending
		case ws.LastNack != "":
			ws.State = Nacked
		default:
			ws.State = Synced
		}
		st.Types[url] = ws
	}
	return st
}
