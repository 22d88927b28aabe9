package app

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/tulle-mesh/tulle/internal/authz/request"
	"github.com/tulle-mesh/tulle/internal/workload"
	"github.com/tulle-mesh/tulle/waypoint/mesh"
	"github.com/tulle-mesh/tulle/waypoint/message"
	"github.com/tulle-mesh/tulle/waypoint/route"
)

// answer says what would become of a request, by the state in force.
type answer struct {
	Gateway string `json:"gateway"`
	Service string `json:"service"`
	Port    uint16 `json:"port"`
	// Protocol is what the port is declared to speak.
	Protocol string `json:"protocol"`
	From     string `json:"from,omitempty"`
	Allowed  bool   `json:"allowed"`
	// Undecided tells that policies let it pass, but for external authorizers, theirs or
	// the rule's, which are not asked here; it is not Allowed then, and Reason names them.
	Undecided bool `json:"undecided,omitempty"`
	// Policy decided, Reason says why it refuses.
	Policy string `json:"policy,omitempty"`
	Reason string `json:"reason,omitempty"`
	// Policies and Authentications apply to the service; RateLimits may refuse what
	// policies allow.
	Policies        []string `json:"policies,omitempty"`
	Authentications []string `json:"authentications,omitempty"`
	RateLimits      []string `json:"rateLimits,omitempty"`
	// Notes are what could not be judged without the request itself.
	Notes []string          `json:"notes,omitempty"`
	Route route.Explanation `json:"route"`
	// Backends are where the rule sends requests, with their endpoints.
	Backends []backendAnswer `json:"backends,omitempty"`
}

type backendAnswer struct {
	Backend string `json:"backend"`
	Weight  uint32 `json:"weight"`
	Fault   string `json:"fault,omitempty"`
	// Endpoints could answer now, of Of.
	Endpoints int `json:"endpoints"`
	Of        int `json:"of"`
}

// question is what is asked.
type question struct {
	service workload.ServiceKey
	port    uint16
	client  spiffeid.ID
	source  netip.Addr
	request *message.Request
}

func (w *waypoint) explainRequest(rw http.ResponseWriter, r *http.Request) {
	q, err := w.parseQuestion(r.URL.Query())
	if err != nil {
		http.Error(rw, "explain: "+err.Error(), http.StatusBadRequest)
		return
	}
	a, err := w.explain(q)
	if err != nil {
		http.Error(rw, "explain: "+err.Error(), http.StatusNotFound)
		return
	}
	writeJSON(rw, a)
}

// parseQuestion reads a question. The error names the parameter.
func (w *waypoint) parseQuestion(v url.Values) (question, error) {
	var q question
	var ok bool
	if q.service, ok = workload.ParseServiceKey(v.Get("service")); !ok {
		return q, fmt.Errorf("service: %q is not namespace/hostname", v.Get("service"))
	}
	port, err := strconv.ParseUint(v.Get("port"), 10, 16)
	if err != nil || port == 0 {
		return q, fmt.Errorf("port: %q is not a port", v.Get("port"))
	}
	q.port = uint16(port)
	if from := v.Get("from"); from != "" {
		if q.client, err = spiffeid.FromString(from); err != nil {
			namespace, account, found := strings.Cut(from, "/")
			if !found {
				namespace, account = from, workload.DefaultServiceAccount
			}
			if q.client, err = workload.NewIdentity(w.cfg.TrustDomain, namespace, account); err != nil {
				return q, fmt.Errorf("from: %w", err)
			}
		}
	}
	if source := v.Get("source"); source != "" {
		if q.source, err = netip.ParseAddr(source); err != nil {
			return q, fmt.Errorf("source: %w", err)
		}
	}
	method := v.Get("method")
	if method == "" {
		return q, nil // a connection
	}
	target := v.Get("path")
	if target == "" {
		target = "/"
	}
	path, query, hasQuery, err := message.ParseTarget(target)
	if err != nil {
		return q, fmt.Errorf("path: %w", err)
	}
	q.request = &message.Request{
		Method: method, Scheme: "http", Authority: v.Get("authority"), Path: path, Query: query, HasQuery: hasQuery,
	}
	if q.request.Authority == "" {
		q.request.Authority = q.service.Hostname
	}
	for _, h := range v["header"] {
		name, value, found := strings.Cut(h, ":")
		name, value = strings.ToLower(strings.TrimSpace(name)), strings.TrimSpace(value)
		if !found || !message.ValidName(name) || !message.ValidValue(value) {
			return q, fmt.Errorf("header: %q is not name:value", h)
		}
		q.request.Header.Add(name, value)
	}
	return q, nil
}

// explain answers by the code that decides on requests.
func (w *waypoint) explain(q question) (*answer, error) {
	svc := w.mesh.Service(q.service)
	if svc == nil {
		return nil, fmt.Errorf("service %s does not use waypoint %s/%s, which knows %s", q.service, w.cfg.PodNamespace, w.cfg.Gateway, w.known())
	}
	port := svc.Port(q.port)
	if port == nil {
		return nil, fmt.Errorf("service %s has no port %d", q.service, q.port)
	}
	a := &answer{
		Gateway: w.cfg.PodNamespace + "/" + w.cfg.Gateway, Service: q.service.String(), Port: q.port, Protocol: port.Protocol.String(),
		Policies: svc.Service.Policies, Authentications: svc.Authentications, RateLimits: svc.Service.RateLimits,
	}
	peer, err := request.NewPeer(q.client)
	if q.client.IsZero() {
		a.Notes = append(a.Notes, "no client was named: policies and routes that ask who it is were not judged for anyone")
	} else {
		if err != nil {
			return nil, err
		}
		a.From = q.client.String()
	}
	w.explainPolicies(a, svc, peer, q)
	var decision route.Decision
	if q.request != nil {
		a.Route = port.Explain(peer.Namespace(), q.request)
		decision = port.Match(peer.Namespace(), q.request)
	} else {
		a.Route = port.ExplainConnect(peer.Namespace(), "")
		decision = port.Connect(peer.Namespace(), "")
	}
	if why := a.Route.Undecided(); why != "" && a.Allowed {
		a.Allowed, a.Undecided, a.Reason = false, true, why
	}
	w.explainBackends(a, decision, q)
	return a, nil
}

func (w *waypoint) known() string {
	var names []string
	for key := range w.mesh.Services() {
		names = append(names, key.String())
	}
	slices.Sort(names)
	if len(names) == 0 {
		return "no service"
	}
	if len(names) > 10 {
		return strings.Join(names[:10], ", ") + fmt.Sprintf(" and %d more", len(names)-10)
	}
	return strings.Join(names, ", ")
}

func (w *waypoint) explainPolicies(a *answer, svc *mesh.Service, peer request.Peer, q question) {
	if !q.source.IsValid() {
		q.source = netip.IPv4Unspecified()
		if len(svc.Service.Policies) > 0 {
			a.Notes = append(a.Notes, "no address of the client was named: conditions on addresses were judged for 0.0.0.0")
		}
	}
	attributes := request.Attributes{
		Source: q.source, Remote: q.source, Peer: peer, Destination: netip.AddrPortFrom(netip.Addr{}, q.port),
	}
	if r := q.request; r != nil {
		attributes.Request = &request.Request{
			Method: r.Method, Scheme: r.Scheme, Authority: r.Authority, Path: r.Path, Folded: message.Folded(r.Path),
			Query: r.Query, HasQuery: r.HasQuery, Fields: &r.Header,
		}
		if !svc.Tokens.Empty() {
			a.Notes = append(a.Notes, "tokens are not checked here: the request is judged as one without")
		}
	}
	consent := svc.Policies.Consult(&attributes)
	asks := consent.AgreeAll()
	permit, observed, err := svc.Policies.Authorize(&attributes, consent)
	for _, o := range observed {
		if o.Matched || o.WouldDeny {
			a.Notes = append(a.Notes, "policy "+o.Policy+" fits, and is not enforced")
		}
	}
	a.Allowed, a.Policy = err == nil, permit.Policy()
	var denial *request.Denial
	if errors.As(err, &denial) {
		a.Policy = denial.Policy
	}
	switch {
	case err != nil:
		a.Reason = err.Error()
	case len(asks) > 0:
		a.Allowed, a.Undecided, a.Policy, a.Reason = false, true, asks[0].Policy, request.Undecided(asks)
	}
}

func (w *waypoint) explainBackends(a *answer, d route.Decision, q question) {
	serving := map[string][2]int{}
	for _, b := range w.mesh.Backends() {
		n := serving[b.Name]
		for _, t := range b.Targets {
			n[1]++
			if t.Serving {
				n[0]++
			}
		}
		serving[b.Name] = n
	}
	add := func(name string, weight uint32, fault string) {
		n, made := serving[name]
		if !made {
			// Nobody has sent anything there yet.
			key, _, _ := strings.Cut(name, ":")
			if k, ok := workload.ParseServiceKey(key); ok {
				e := w.store.Snapshot().Endpoints(k)
				n = [2]int{e.Healthy(), e.Len()}
			}
		}
		a.Backends = append(a.Backends, backendAnswer{Backend: name, Weight: weight, Fault: fault, Endpoints: n[0], Of: n[1]})
	}
	switch {
	case d.Kind == route.Default:
		add(fmt.Sprintf("%s:%d", q.service, q.port), 1, "")
	case d.Rule != nil:
		for i := range d.Rule.Backends {
			b := &d.Rule.Backends[i]
			add(fmt.Sprintf("%s:%d", b.Service, b.Port), b.Weight, b.Fault)
		}
	}
}
