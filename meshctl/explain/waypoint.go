package explain

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/tulle-mesh/tulle/meshctl/mesh"
	"github.com/tulle-mesh/tulle/waypoint/message"
	"github.com/tulle-mesh/tulle/waypoint/route"
)

// WaypointAnswer is what a waypoint says would become of a request, or of a connection,
// by its state: its own code decides.
type WaypointAnswer struct {
	// Waypoint is the proxy that answers, NAMESPACE/POD, of the Gateway.
	Waypoint string `json:"waypoint,omitempty"`
	Gateway  string `json:"gateway"`
	Service  string `json:"service"`
	Port     uint16 `json:"port"`
	Protocol string `json:"protocol"`
	From     string `json:"from,omitempty"`
	// Method and Path are what was asked about; empty for a connection.
	Method  string `json:"method,omitempty"`
	Path    string `json:"path,omitempty"`
	Allowed bool   `json:"allowed"`
	// Undecided tells that external authorizers decide, which nobody asked: Reason names
	// them, and Allowed is false.
	Undecided       bool              `json:"undecided,omitempty"`
	Policy          string            `json:"policy,omitempty"`
	Reason          string            `json:"reason,omitempty"`
	Policies        []string          `json:"policies,omitempty"`
	Authentications []string          `json:"authentications,omitempty"`
	RateLimits      []string          `json:"rateLimits,omitempty"`
	Notes           []string          `json:"notes,omitempty"`
	Route           route.Explanation `json:"route"`
	Backends        []WaypointBackend `json:"backends,omitempty"`
}

// WaypointBackend is one destination of the rule, with how many endpoints serve of those
// that there are.
type WaypointBackend struct {
	Backend string `json:"backend"`
	Weight  uint32 `json:"weight"`
	Fault   string `json:"fault,omitempty"`
	// Unseen tells that endpoints were not looked at.
	Unseen    bool `json:"unseen,omitempty"`
	Endpoints int  `json:"endpoints"`
	Of        int  `json:"of"`
}

// Serves says why requests would not be served: by a backend, or by an answer of the rule
// itself that is no error. It is "" when they would be.
func (a *WaypointAnswer) Serves() string {
	switch {
	case !a.Allowed && !a.Undecided && a.Reason != "":
		return a.Reason
	case !a.Allowed && !a.Undecided:
		return "refused by the waypoint's policies"
	case a.Route.Decision == "not found":
		return "no route takes the request: it is answered 404"
	case a.Route.Fault != "":
		return "the route cannot be followed, and answers 500: " + a.Route.Fault
	case a.Route.Fails():
		return a.Route.Answer
	case a.Route.Answer != "":
		return ""
	}
	fault, sound, serving := "", false, false
	for _, b := range a.Backends {
		switch {
		case b.Weight == 0:
		case b.Fault != "":
			fault = cmp.Or(fault, b.Fault)
		default:
			sound, serving = true, serving || b.Unseen || b.Endpoints > 0
		}
	}
	switch {
	case len(a.Backends) == 0 || serving:
		return ""
	case !sound && fault != "":
		return "the backends of the route cannot be used, and requests get 500: " + fault
	}
	return "no backend of the route has an endpoint that serves"
}

// Unknown says why nobody can tell whether requests are served; "" when Serves does.
func (a *WaypointAnswer) Unknown() string {
	if a.Undecided && a.Serves() == "" {
		return a.Reason
	}
	return ""
}

// Does says what becomes of a request, or a connection, that is served.
func (a *WaypointAnswer) Does() string {
	switch {
	case a.Route.Answer != "":
		return a.Route.Answer
	case a.Route.Decision == "default":
		return "sent to the service itself"
	}
	var to, bad []string
	total, used := 0, 0
	for _, b := range a.Backends {
		total += int(b.Weight)
		if b.Weight > 0 {
			used++
		}
	}
	for _, b := range a.Backends {
		share := ""
		if used > 1 {
			share = fmt.Sprintf(" (%.4g %%)", 100*float64(b.Weight)/float64(total))
		}
		_, host, _ := strings.Cut(b.Backend, "/")
		switch {
		case b.Weight == 0:
		case b.Fault != "":
			bad = append(bad, fmt.Sprintf("%.4g %% get 500: %s", 100*float64(b.Weight)/float64(total), b.Fault))
		default:
			to = append(to, host+share)
		}
	}
	return strings.Join(append([]string{"sent to " + cmp.Or(strings.Join(to, ", "), "the backends of the route")}, bad...), "; ")
}

// noRequests says that a port has none to judge.
func noRequests(protocol string) string {
	return "the port speaks " + protocol + ": a connection is judged, and --method, --path, --authority and --header say nothing of one"
}

// AskWaypoint asks a waypoint about a request for service ("namespace/hostname") by the
// client from: an identity, NAMESPACE/ACCOUNT, or empty.
func AskWaypoint(ctx context.Context, c *mesh.Component, service string, port uint16, from string, source netip.Addr, r HTTP) (*WaypointAnswer, error) {
	q := url.Values{"service": {service}, "port": {strconv.Itoa(int(port))}, "header": r.Headers}
	authority := r.Authority
	if normal, err := message.NormalizeAuthority(authority); err == nil {
		authority = normal // as the proxy puts it before it looks for a rule
	}
	for name, value := range map[string]string{"from": from, "method": r.Method, "path": r.Path, "authority": authority} {
		if value != "" {
			q.Set(name, value)
		}
	}
	if source.IsValid() {
		q.Set("source", source.String())
	}
	body, err := c.Get(ctx, "/explain/request?"+q.Encode())
	if err != nil {
		return nil, err
	}
	a := &WaypointAnswer{}
	if err := json.Unmarshal(body, a); err != nil {
		return nil, fmt.Errorf("%s answers something else: %w", c, err)
	}
	a.Waypoint, a.Method, a.Path = c.Name, r.Method, r.Path
	return a, nil
}

// Ask has the waypoint judge the request, where the port of a, which it said of a
// connection, has requests; else it notes that it has none.
func (a *WaypointAnswer) Ask(ctx context.Context, c *mesh.Component, from string, source netip.Addr, r HTTP) error {
	if !isHTTP(a.Protocol) {
		if r.given() {
			a.Notes = append(a.Notes, noRequests(a.Protocol))
		}
		return nil
	}
	r.Method, r.Path = cmp.Or(r.Method, "GET"), cmp.Or(r.Path, "/")
	judged, err := AskWaypoint(ctx, c, a.Service, a.Port, from, source, r)
	if err == nil {
		*a = *judged
	}
	return err
}

// isHTTP reports whether a port of that protocol has requests.
func isHTTP(protocol string) bool {
	return slices.Contains([]string{"HTTP1", "HTTP2", "GRPC"}, protocol)
}

// waypointWay asks the waypoint on a way what it decides.
func (x *run) waypointWay(w *Way) {
	w.Outcome = Unknown
	if s := x.out.Server; len(s.Ports) > 0 && !slices.Contains(s.Ports, s.Port) {
		// The node proxy leads every port there, and the waypoint serves those alone.
		w.Outcome, w.Reason = Refused, fmt.Sprintf("service %s has no port %d", s.Service, s.Port)
		x.advise("the service's ports are %s", list(s.Ports))
		return
	}
	all, err := x.mesh.Components(x.ctx, mesh.Waypoint)
	if err != nil {
		w.Reason = err.Error()
		return
	}
	var chosen *mesh.Component
	for _, c := range all {
		switch {
		case w.Hop.Workload != nil && c.Name == w.Hop.Workload.Namespace+"/"+w.Hop.Workload.Name:
			chosen = c
		case chosen == nil && w.Hop.Workload == nil && c.Ready && sameGateway(c.Gateway, x.out.Server.Waypoint):
			chosen = c
		}
	}
	if chosen == nil {
		w.Reason = "the waypoint decides further, and this command does not see its proxy"
		if x.mesh.Local() {
			x.advise("`meshctl local status` says how the pods of waypoint %s are", x.out.Server.Waypoint)
		} else {
			x.advise("`meshctl waypoint status` says how waypoint %s is", x.out.Server.Waypoint)
		}
		return
	}
	if !chosen.Ready {
		x.advise("waypoint %s is not ready: %s", chosen.Name, chosen.Reason)
	}
	var source netip.Addr
	if w.Hop.Target.IsValid() {
		source = x.sourceFor(w.Hop.Target)
	}
	if x.out.Server.Service == "" {
		w.Reason = fmt.Sprintf("waypoint %s, which is for the pod itself, decides further, and tells ahead of services only", chosen.Gateway)
		x.advise("only the request itself shows what the waypoint decides: send it, and look at `meshctl waypoint tap`")
		return
	}
	from := x.out.Client.Identity
	// The port's protocol decides whether there are requests.
	a, err := AskWaypoint(x.ctx, chosen, x.out.Server.Service, x.out.Server.Port, from, source, HTTP{})
	if err == nil {
		err = a.Ask(x.ctx, chosen, from, source, x.http)
	}
	if err != nil {
		w.Reason = "the waypoint decides further: " + err.Error()
		return
	}
	w.Waypoint, w.Policy = a, a.Policy
	switch why := a.Serves(); {
	case why != "":
		w.Outcome, w.Reason = Refused, why
		x.adviseWaypointAnswer(a)
	case a.Undecided:
		w.Reason = a.Reason
	default:
		w.Outcome = Allowed
	}
}

func (x *run) adviseWaypointAnswer(a *WaypointAnswer) {
	switch {
	case !a.Allowed && a.Policy != "":
		x.advise("policy %s decides for this request at the waypoint; another method, path or header (--method, --path, -H) may be judged otherwise", a.Policy)
	case a.Route.Decision == "not found":
		x.advise("a route is attached to the service, and none of its rules fits: `meshctl route check` shows each rule and the condition that failed")
	}
}

// sameGateway compares NAMESPACE/NAME with how ztunnels name a waypoint: its service,
// namespace/hostname.
func sameGateway(gateway, waypoint string) bool {
	ns, host, _ := strings.Cut(waypoint, "/")
	name, _, _ := strings.Cut(host, ".")
	return gateway == ns+"/"+name
}

// waypointSummary says who lets a request through.
func waypointSummary(ways []Way) string {
	var through []string
	for _, w := range ways {
		if w.Waypoint != nil && w.Outcome == Allowed && !slices.Contains(through, w.Waypoint.Gateway) {
			through = append(through, w.Waypoint.Gateway)
		}
	}
	for _, w := range ways {
		if w.Waypoint == nil || w.Outcome != Allowed {
			continue
		}
		text := "through waypoint " + strings.Join(through, " or ")
		if w.Waypoint.Route.Rule != "" {
			text += ", by rule " + w.Waypoint.Route.Rule
		}
		if w.Waypoint.Route.Answer != "" {
			text += ": " + w.Waypoint.Route.Answer
		}
		if w.Policy != "" {
			return text + "; allowed by " + w.Policy
		}
		return text + "; no policy stands against it"
	}
	return ""
}
