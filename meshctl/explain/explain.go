package explain

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/tulle-mesh/tulle/meshctl/mesh"
	ztunnel "github.com/tulle-mesh/tulle/ztunnel/explain"
)

// run is one explanation in the making.
type run struct {
	ctx     context.Context
	mesh    mesh.Mesh
	proxies []*mesh.Component
	client  mesh.Pod
	target  target
	http    HTTP
	out     *Explanation
	// member is true when the client's own node proxy serves it.
	member bool
	// asked are the node proxies on the ways.
	asked []*mesh.Component
}

// Explain says what would become of the connection.
func Explain(ctx context.Context, m mesh.Mesh, r Request) (*Explanation, error) {
	client, err := mesh.Find(ctx, m, r.Namespace, r.Client)
	if err != nil {
		return nil, err
	}
	if client.Node == "" {
		return nil, fmt.Errorf("pod %s/%s is on no node yet: %s", client.Namespace, client.Name, client.Reason)
	}
	if client.Phase == "Succeeded" || client.Phase == "Failed" {
		return nil, fmt.Errorf("pod %s/%s has ended (%s): it makes no connections", client.Namespace, client.Name, client.Phase)
	}
	proxies, err := m.Components(ctx, mesh.Ztunnel)
	if err != nil {
		return nil, err
	}
	x := &run{ctx: ctx, mesh: m, proxies: proxies, client: client, http: r.HTTP}
	source := x.proxiesOf(client.Node)
	if len(source) == 0 {
		return nil, fmt.Errorf("no ztunnel runs on node %s, where the client is: nobody can say what would become of its connections (see `meshctl check`)", client.Node)
	}
	dump, err := source[0].Dump(ctx)
	if err != nil {
		if why := source[0].Reason; why != "" {
			err = fmt.Errorf("%w (%s)", err, why)
		}
		return nil, err
	}
	if x.target, err = findServer(ctx, m, r, client, dump.Services); err != nil {
		return nil, err
	}
	return x.explain(source)
}

// proxiesOf lists the ztunnels of a node, those that are ready first. There are two
// while one takes over from the other, and either may serve a pod.
func (x *run) proxiesOf(node string) []*mesh.Component {
	var ready, others []*mesh.Component
	for _, c := range x.proxies {
		switch {
		case c.Node != node:
		case c.Ready:
			ready = append(ready, c)
		default:
			others = append(others, c)
		}
	}
	return append(ready, others...)
}

// ask asks the ztunnels of a node in turn until one serves the pod; else the answer
// of the first that answered counts.
func ask[T any](all []*mesh.Component, question func(*mesh.Component) (answer T, served bool, err error)) (T, *mesh.Component, error) {
	var first T
	var from *mesh.Component
	var failed error
	for _, c := range all {
		a, served, err := question(c)
		switch {
		case err != nil:
			if failed == nil {
				failed = err
			}
		case served:
			return a, c, nil
		case from == nil:
			first, from = a, c
		}
	}
	if from != nil {
		return first, from, nil
	}
	return first, nil, failed
}

func (x *run) explain(source []*mesh.Component) (*Explanation, error) {
	name := ztunnel.Name{Namespace: x.client.Namespace, Name: x.client.Name}
	a, from, err := ask(source, func(c *mesh.Component) (ztunnel.OutboundAnswer, bool, error) {
		a, err := c.ExplainOutbound(x.ctx, name, x.target.Dest, x.target.key, x.target.Port)
		return a, a.Captured, err
	})
	if err != nil {
		return nil, err
	}
	x.asked = append(x.asked, from)
	x.member = a.Captured
	x.out = &Explanation{
		Client: Client{Namespace: x.client.Namespace, Pod: x.client.Name, Node: x.client.Node, IPs: x.client.IPs, Member: a.Captured},
		Server: x.target.Server, Ways: []Way{},
	}
	if a.Service != nil {
		x.out.Server.Service, x.out.Server.Waypoint = a.Service.Namespace+"/"+a.Service.Hostname, a.Service.Waypoint
		x.out.Server.Addresses, x.out.Server.Ports, x.out.Server.Shares = a.Service.Addresses, a.Service.Ports, a.Service.Shares
	}
	switch {
	case a.Captured && a.Client != nil:
		x.out.Client.Identity = a.Client.Identity
	case !a.Captured && x.client.Member:
		x.out.Client.Outside = "it is captured, but the ztunnel of its node does not serve it"
		x.advise("look at the log of the ztunnel and of the tulle-agent on node %s: until the ztunnel serves the pod, its connections are refused", x.client.Node)
	case !a.Captured:
		x.out.Client.Outside = x.client.Outside
	}
	if a.Captured && !x.client.Member {
		// The ztunnel serves a pod before the agent sends it connections, and keeps what
		// is open of one that has left.
		x.advise("the client is joining or leaving the mesh right now, and while it leaves new connections go past the mesh already: ask again in some seconds (%s)", x.client.Outside)
	}
	if !x.client.Ready && x.client.Reason != "" {
		x.advise("the client pod is not ready: %s", x.client.Reason)
	}
	x.ways(a)
	x.out.Proxies = x.sync()
	x.conclude(a.Problem)
	return x.out, nil
}

func (x *run) advise(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if !slices.Contains(x.out.Advice, text) {
		x.out.Advice = append(x.out.Advice, text)
	}
}

// ways follows every way of the client's ztunnel to its end.
func (x *run) ways(a ztunnel.OutboundAnswer) {
	alternatives := 0
	for _, hop := range a.Ways {
		if hop.Share > 0 {
			alternatives++
		}
	}
	for _, hop := range a.Ways {
		w := Way{Hop: hop, Share: hop.Share, DecidedBy: a.Node}
		if !x.member {
			x.outsideWay(&w, a)
			x.out.Ways = append(x.out.Ways, w)
			continue
		}
		w.Decision = words(hop)
		if x.toItself(hop) {
			w.Decision = "within the pod: client and server are the same, so that the bytes never leave it; no tunnel is made, and no policy is asked"
		}
		switch {
		case hop.Reason != "" && alternatives > 0 && hop.Share == 0:
			w.Outcome, w.Reason = NotTaken, hop.Reason
		case hop.Kind == "deny", hop.Reason != "":
			w.Outcome, w.Reason = Refused, hop.Reason
			x.adviseHop(hop)
		case hop.Kind == "hbone":
			x.authorize(&w, x.out.Client.Identity)
		case hop.Kind == "waypoint":
			x.waypointWay(&w)
		default:
			w.Outcome = Allowed
			if hop.Workload != nil && hop.Kind == "direct" && hop.Workload.Pod && hop.Workload.UID != uidOf(a.Client) {
				x.adviseOutsideServer(hop)
			}
		}
		x.out.Ways = append(x.out.Ways, w)
	}
	if !x.member {
		x.evenShares()
	}
}

// toItself reports whether a way ends in the client's own pod.
func (x *run) toItself(hop ztunnel.Way) bool {
	w := hop.Workload
	return x.member && hop.Kind == "direct" && w != nil && w.Pod && w.Namespace == x.client.Namespace && w.Name == x.client.Name
}

func uidOf(w *ztunnel.Workload) string {
	if w == nil {
		return ""
	}
	return w.UID
}

// outsideWay is a way of a client that the mesh does not capture: kube-proxy or
// the network brings it there, in plaintext.
func (x *run) outsideWay(w *Way, a ztunnel.OutboundAnswer) {
	w.DecidedBy, w.Hop.SameNode = "", false
	hop := w.Hop
	w.Decision = "plaintext, past the mesh"
	if hop.Service != "" && hop.Upstream.IsValid() {
		w.Decision = "plaintext, past the mesh: the cluster's own load balancing chooses the endpoint"
	}
	if x.client.Member { // captured and not served: fail closed
		w.Outcome, w.Reason = Refused, "the client's connections are redirected to a ztunnel that does not serve it"
		return
	}
	switch {
	case !hop.Upstream.IsValid() || hop.Workload != nil && !hop.Workload.Healthy && hop.Service != "":
		w.Outcome, w.Reason = NotTaken, hop.Reason
		if len(a.Ways) == 1 || a.Service == nil {
			w.Outcome = Refused
			x.adviseHop(hop)
		}
	case hop.Workload == nil, hop.Workload.Protocol != "HBONE":
		w.Outcome = Allowed
	default:
		x.authorize(w, "")
	}
}

// evenShares spreads the connections of a client outside the mesh over the
// endpoints that are reachable.
func (x *run) evenShares() {
	n := 0
	for _, w := range x.out.Ways {
		if w.Outcome != NotTaken {
			n++
		}
	}
	for i := range x.out.Ways {
		x.out.Ways[i].Share = 0
		if x.out.Ways[i].Outcome != NotTaken {
			x.out.Ways[i].Share = 1 / float64(n)
		}
	}
}

// authorize asks the server's node proxy; an empty identity is a client in
// plaintext.
func (x *run) authorize(w *Way, identity string) {
	server := w.Hop.Workload
	proxies := x.proxiesOf(server.Node)
	if len(proxies) == 0 {
		w.Outcome, w.Reason = Unknown, "no ztunnel runs on node "+server.Node+", where the server is"
		x.advise("a node without a ztunnel cannot serve pods of the mesh: `meshctl check` says why there is none on %s", server.Node)
		return
	}
	source := x.sourceFor(w.Hop.Upstream)
	if !source.IsValid() {
		w.Outcome, w.Reason = Unknown, "the client has no address of the server's family"
		return
	}
	a, from, err := ask(proxies, func(c *mesh.Component) (ztunnel.InboundAnswer, bool, error) {
		a, err := c.ExplainInbound(x.ctx, ztunnel.Name{Namespace: server.Namespace, Name: server.Name}, w.Hop.Upstream, source, identity)
		return a, a.Captured, err
	})
	if err != nil {
		w.Outcome, w.Reason = Unknown, err.Error()
		return
	}
	if !slices.Contains(x.asked, from) {
		x.asked = append(x.asked, from)
	}
	w.AuthorizedBy, w.Policies, w.Policy = a.Node, a.Policies, a.Policy
	if identity != "" {
		w.ServerIdentity = server.Identity
	}
	switch {
	case !a.Captured && identity == "":
		w.Outcome, w.Policies, w.Policy, w.AuthorizedBy = Allowed, nil, "", ""
		x.advise("pod %s/%s is announced as a member of the mesh, but the ztunnel of node %s does not serve it", server.Namespace, server.Name, server.Node)
	case !a.Captured:
		w.Outcome, w.Reason = Refused, fmt.Sprintf("the ztunnel of node %s does not serve pod %s/%s: nobody listens for the tunnel", server.Node, server.Namespace, server.Name)
		w.Policies, w.Policy, w.AuthorizedBy, w.ServerIdentity = nil, "", "", ""
		x.advise("`meshctl check` says why the agent of node %s has not enrolled pod %s/%s", server.Node, server.Namespace, server.Name)
	case a.Allowed:
		w.Outcome = Allowed
	default:
		w.Outcome, w.Reason = Refused, a.Reason
		x.advisePolicy(*w, identity)
	}
}

// sourceFor is the client's address of the family of dst.
func (x *run) sourceFor(dst netip.AddrPort) netip.Addr {
	for _, ip := range x.client.IPs {
		if a, err := netip.ParseAddr(ip); err == nil && a.Unmap().Is4() == dst.Addr().Is4() {
			return a.Unmap()
		}
	}
	return netip.Addr{}
}

// conclude sums up. One way that is refused makes the answer refused: some of the
// connections would be.
func (x *run) conclude(problem string) {
	e := x.out
	counts := map[Outcome]int{}
	taken := 0
	for _, w := range e.Ways {
		counts[w.Outcome]++
		if w.Outcome != NotTaken {
			taken++
		}
	}
	switch {
	case problem != "":
		e.Outcome, e.Summary = Unknown, problem
		x.advise("if this does not pass within seconds, `meshctl check` says whether the control plane and the ztunnel of node %s are in sync", x.client.Node)
	case x.member && !x.client.Member:
		// Whether the agent redirects its connections by now is not seen here.
		e.Outcome, e.Summary = Unknown, "the client is joining or leaving the mesh right now: new connections may go through it or past it"
	case taken == 0:
		e.Outcome, e.Summary = Refused, "there is no endpoint to go to"
	case counts[Refused] > 0:
		e.Outcome, e.Summary = Refused, firstReason(e.Ways, Refused)
		if counts[Refused] < taken {
			what := "endpoints"
			if len(e.Server.Shares) > 0 {
				what = "waypoints"
			}
			e.Summary = fmt.Sprintf("at %d of %d %s: %s", counts[Refused], taken, what, e.Summary)
		}
	case counts[Unknown] > 0:
		e.Outcome, e.Summary = Unknown, firstReason(e.Ways, Unknown)
	default:
		e.Outcome = Allowed
		if e.Summary = waypointSummary(e.Ways); e.Summary == "" {
			e.Summary = x.allowedBy()
		}
	}
	if x.target.Service != "" && e.Server.Waypoint == "" {
		x.adviseWaypoint()
	}
	if x.http.given() && !slices.ContainsFunc(e.Ways, func(w Way) bool { return w.Waypoint != nil || w.Hop.Kind == "waypoint" }) {
		x.advise("no waypoint is on the way, and node proxies do not see requests: --method, --path, --authority and --header changed nothing of this answer")
	}
}

func firstReason(ways []Way, o Outcome) string {
	for _, w := range ways {
		if w.Outcome == o {
			return w.Reason
		}
	}
	return ""
}

func (x *run) allowedBy() string {
	var policies []string
	plaintext, tunnel, itself := false, false, false
	for _, w := range x.out.Ways {
		if w.Outcome != Allowed {
			continue
		}
		if w.Policy != "" && !slices.Contains(policies, w.Policy) {
			policies = append(policies, w.Policy)
		}
		switch {
		case x.toItself(w.Hop):
			itself = true
		case w.ServerIdentity != "":
			tunnel = true
		default:
			plaintext = true
		}
	}
	if itself && !plaintext && !tunnel {
		return "client and server are the same pod: the bytes never leave it, and no policy is asked"
	}
	how := "encrypted, with both identities proved"
	switch {
	case plaintext && tunnel:
		how = "in part in plaintext"
	case plaintext:
		how = "in plaintext"
	}
	if itself {
		how += " (but for the client itself, inside its pod)"
	}
	if len(policies) > 0 {
		return how + "; allowed by " + strings.Join(policies, ", ")
	}
	return how + "; no policy stands against it"
}
