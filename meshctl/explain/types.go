package explain

import (
	"net/netip"
	"time"

	ztunnel "github.com/tulle-mesh/tulle/ztunnel/explain"
)

// Request is the question: would a connection of Client to Server pass?
type Request struct {
	// Client is a pod, as mesh.Find takes it.
	Client string
	// Server is SERVICE[:PORT], HOST[:PORT], IP:PORT or POD:PORT.
	Server string
	// Namespace is where names without one are looked for; empty is the mesh's.
	Namespace string
	// HTTP is what waypoints on the way are asked about.
	HTTP HTTP
}

// Outcome of an explanation, or of one way.
type Outcome string

// The outcomes.
const (
	Allowed Outcome = "allowed"
	Refused Outcome = "refused"
	// Unknown: something that decides could not be asked.
	Unknown Outcome = "unknown"
	// NotTaken is an endpoint that connections do not go to.
	NotTaken Outcome = "not taken"
)

// Explanation is the answer.
type Explanation struct {
	Outcome Outcome `json:"outcome"`
	// Summary is one sentence.
	Summary string `json:"summary"`
	Client  Client `json:"client"`
	Server  Server `json:"server"`
	Ways    []Way  `json:"ways"`
	// Proxies tell which configuration the node proxies on the ways have.
	Proxies []Proxy `json:"proxies"`
	// Advice says what to do about what is wrong.
	Advice []string `json:"advice,omitempty"`
}

// Client is who connects.
type Client struct {
	Namespace string   `json:"namespace"`
	Pod       string   `json:"pod"`
	Node      string   `json:"node"`
	IPs       []string `json:"ips"`
	// Member is true when its connections go through the mesh; Outside says why not.
	Member  bool   `json:"member"`
	Outside string `json:"outside,omitempty"`
	// Identity is what its ztunnel proves; empty outside the mesh.
	Identity string `json:"identity,omitempty"`
}

// Server is what was asked for.
type Server struct {
	// Asked is as it was typed.
	Asked string `json:"asked"`
	// Service is "namespace/hostname" when it is one.
	Service   string   `json:"service,omitempty"`
	Addresses []string `json:"addresses,omitempty"`
	Ports     []uint16 `json:"ports,omitempty"`
	Waypoint  string   `json:"waypoint,omitempty"`
	// Shares are the waypoints that share new connections, where there are several.
	Shares []ztunnel.WaypointShare `json:"waypointShares,omitempty"`
	Dest   netip.AddrPort          `json:"dest,omitzero"`
	Port   uint16                  `json:"port"`
}

// Way is one way that the connection can take, and what becomes of it there.
type Way struct {
	Outcome Outcome `json:"outcome"`
	// Reason says why it is refused, unknown or not taken.
	Reason string `json:"reason,omitempty"`
	// Share is the way's part of new connections, 0 to 1.
	Share float64 `json:"share"`
	// Decision is the next hop in words, made by the ztunnel of DecidedBy.
	Decision  string `json:"decision"`
	DecidedBy string `json:"decidedBy,omitempty"`
	// Hop is the decision as it was made.
	Hop ztunnel.Way `json:"hop"`
	// ServerIdentity is what the peer proves, empty in plaintext.
	ServerIdentity string `json:"serverIdentity,omitempty"`
	// AuthorizedBy is the node whose ztunnel judged the policies.
	AuthorizedBy string            `json:"authorizedBy,omitempty"`
	Policies     []ztunnel.Verdict `json:"policies,omitempty"`
	// Policy is the one that settled it, or was nearest.
	Policy string `json:"policy,omitempty"`
	// Waypoint is what the waypoint on the way decides.
	Waypoint *WaypointAnswer `json:"waypoint,omitempty"`
}

// Proxy is the configuration of one node proxy.
type Proxy struct {
	Node    string `json:"node"`
	Ztunnel string `json:"ztunnel"`
	// Istiod is the one that it is connected to; empty when none knows it.
	Istiod string `json:"istiod,omitempty"`
	InSync bool   `json:"inSync"`
	// Problem says why it is not in sync.
	Problem string          `json:"problem,omitempty"`
	Types   map[string]Sync `json:"types,omitempty"`
}

// Sync is what a proxy has acknowledged of one kind of configuration.
type Sync struct {
	State     string    `json:"state"`
	Sent      string    `json:"sent"`
	Acked     string    `json:"acked"`
	AckedAt   time.Time `json:"ackedAt,omitzero"`
	Resources int       `json:"resources"`
}
