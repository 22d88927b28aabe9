package route

import (
	"errors"
	"fmt"

	api "github.com/tulle-mesh/tulle/api/waypoint"
	"github.com/tulle-mesh/tulle/waypoint/message"
)

// Service is the compiled form of what one service's waypoints do with its traffic.
type Service struct {
	Namespace, Hostname string
	// Name of the object, for metrics.
	Name string
	// Workload is the UID of the workload that this is about instead of a service, whose
	// Namespace, Hostname and Name are empty then.
	Workload string
	// Policies and Authentications name the resources that apply to all traffic.
	Policies, Authentications []string
	// RateLimits names those that apply to all requests.
	RateLimits []string
	// TrustedProxies are those that are believed about whom a request came from.
	TrustedProxies int

	ports map[uint16]*Port
}

// Port is one port of a service.
type Port struct {
	Number   uint16
	Protocol api.Protocol

	// all is for clients whose namespace has no table; nil without such routes.
	all *table
	// clients has the tables of clients' namespaces; nil without.
	clients map[string]*table
}

// Compile makes s quick to search. Errors are only about what no author of a route can
// have done: ports, and indexes that lead nowhere. What a route says that cannot be
// carried out, or that this version does not understand, becomes the fault of its
// match, rule or backend, and spoils nothing else.
func Compile(s *api.Service) (*Service, error) {
	switch {
	case s.GetWorkload() != "" && s.GetHostname() != "":
		return nil, errors.New("a service and a workload at once")
	case s.GetWorkload() == "" && (s.GetNamespace() == "" || s.GetHostname() == ""):
		return nil, errors.New("service without a namespace or a hostname")
	}
	out := &Service{
		Namespace:       s.GetNamespace(),
		Hostname:        s.GetHostname(),
		Name:            s.GetName(),
		Workload:        s.GetWorkload(),
		Policies:        s.GetPolicies(),
		Authentications: s.GetAuthentications(),
		RateLimits:      s.GetRateLimits(),
		TrustedProxies:  int(min(s.GetTrustedProxies(), maxTrustedProxies)),
		ports:           make(map[uint16]*Port, len(s.GetPorts())),
	}
	for _, p := range s.GetPorts() {
		number := p.GetPort()
		if number == 0 || number > 65535 {
			return nil, fmt.Errorf("port %d is none", number)
		}
		if out.ports[uint16(number)] != nil {
			return nil, fmt.Errorf("port %d comes twice", number)
		}
		compiled, err := compilePort(p)
		if err != nil {
			return nil, fmt.Errorf("port %d: %w", number, err)
		}
		out.ports[uint16(number)] = compiled
	}
	return out, nil
}

func compilePort(p *api.Port) (*Port, error) {
	out := &Port{Number: uint16(p.GetPort()), Protocol: p.GetProtocol()}
	for _, t := range p.GetRoutes() {
		ns := t.GetClientNamespace()
		if out.clients[ns] != nil || ns == "" && out.all != nil {
			return nil, fmt.Errorf("two tables of routes for clients of namespace %q", ns)
		}
		compiled, err := compileTable(t, out.Number)
		if err != nil {
			if ns != "" {
				err = fmt.Errorf("routes for clients of namespace %s: %w", ns, err)
			}
			return nil, err
		}
		if ns == "" {
			out.all = compiled
			continue
		}
		if out.clients == nil {
			out.clients = map[string]*table{}
		}
		out.clients[ns] = compiled
	}
	return out, nil
}

// Port returns the port of that number, nil when the service has none. A workload has
// all of them: those that nothing is said about carry bytes.
func (s *Service) Port(number uint16) *Port {
	if p := s.ports[number]; p != nil || s.Workload == "" {
		return p
	}
	return &Port{Number: number, Protocol: api.Protocol_UNKNOWN}
}

// Kind is what a decision came to.
type Kind uint8

const (
	// Default sends to the service itself: no route concerns the client.
	Default Kind = iota
	// Routed has a rule.
	Routed
	// NotFound means that routes concern the client and none fits: 404, or a
	// connection that is refused.
	NotFound
)

func (k Kind) String() string {
	switch k {
	case Default:
		return "default"
	case Routed:
		return "routed"
	case NotFound:
		return "not found"
	}
	return fmt.Sprintf("Kind(%d)", k)
}

// Decision is what becomes of a request or a connection. The zero value is Default.
type Decision struct {
	Kind Kind
	// Rule is set when Kind is Routed.
	Rule *Rule

	match *match
}

// Fault says why the decision cannot be carried out, which answers 500; "" when it
// can.
func (d Decision) Fault() string {
	if d.Kind != Routed {
		return ""
	}
	return d.Rule.Fault
}

// Prefix returns the prefix of the path that the deciding match asked for, without a
// slash at its end, and whether it did.
func (d Decision) Prefix() (string, bool) {
	if d.match == nil || d.match.kind == pathRegex {
		return "", false
	}
	return d.match.path, true
}

// Refusal returns what a request gets that has nowhere to go: the status, for gRPC
// the one that the Gateway API wants of a GRPCRoute, and whether it is so at all.
func (d Decision) Refusal() (status, grpc int, refused bool) {
	switch {
	case d.Kind == NotFound:
		return 404, grpcUnimplemented, true
	case d.Fault() != "":
		return 500, grpcUnavailable, true
	}
	return 0, 0, false
}

// Refusal is that of the backend's share of the requests, and of no backend's.
func (b *Backend) Refusal() (status, grpc int, refused bool) {
	if b == nil || b.Fault != "" {
		return 500, grpcUnavailable, true
	}
	return 0, 0, false
}

// Statuses of gRPC (https://grpc.io/docs/guides/status-codes/).
const (
	grpcUnimplemented = 12
	grpcUnavailable   = 14
)

func (p *Port) tableFor(clientNamespace string) *table {
	if p.clients != nil {
		if t := p.clients[clientNamespace]; t != nil {
			return t
		}
	}
	return p.all
}

// Match decides on a request of a client in that namespace; "" for one that has
// none. It allocates nothing, but to join repeated fields for regular expressions.
func (p *Port) Match(clientNamespace string, r *message.Request) Decision {
	t := p.tableFor(clientNamespace)
	if t == nil {
		return Decision{}
	}
	return t.decision(t.request(r))
}

// AsksServerName reports whether routes tell connections of a client in that namespace
// apart by the server name of TLS.
func (p *Port) AsksServerName(clientNamespace string) bool {
	t := p.tableFor(clientNamespace)
	return t != nil && len(t.names)+len(t.suffixes) > 0
}

// Connect decides on a connection that is carried as bytes. serverName is that of
// TLS, "" without.
func (p *Port) Connect(clientNamespace, serverName string) Decision {
	t := p.tableFor(clientNamespace)
	if t == nil {
		return Decision{}
	}
	return t.decision(t.connection(serverName))
}
