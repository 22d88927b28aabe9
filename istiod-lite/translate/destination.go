package translate

import (
	"maps"
	"slices"
	"strings"

	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"

	"google.golang.org/protobuf/proto"

	apiwaypoint "github.com/tulle-mesh/tulle/api/waypoint"
	"github.com/tulle-mesh/tulle/istiod-lite/source"
)

// destinations are how waypoints reach services.
type destinations struct {
	// senders are, by service, the waypoints that send requests there and how many
	// things have them do so: they stand before it, or a route leads there.
	senders map[string]map[source.Name]int
	// made holds, by service, the names of the resources.
	made map[string][]string
	// members are the endpoints of the services of which somebody wants a part.
	members map[string]map[string]struct{}
	dirty   map[string]bool
}

func newDestinations() destinations {
	return destinations{senders: map[string]map[source.Name]int{}, made: map[string][]string{}, members: map[string]map[string]struct{}{}, dirty: map[string]bool{}}
}

// count has a waypoint send to services, or no longer.
func (d *destinations) count(waypoint source.Name, services []string, by int) {
	for _, name := range services {
		m := d.senders[name]
		if m == nil {
			m = map[source.Name]int{}
			d.senders[name] = m
		}
		if was := m[waypoint]; was == 0 || was+by == 0 {
			d.dirty[name] = true
		}
		if m[waypoint] += by; m[waypoint] == 0 {
			delete(m, waypoint)
		}
		if len(m) == 0 {
			delete(d.senders, name)
		}
	}
}

// member takes in that a workload is an endpoint of these services by now.
func (d *destinations) member(uid string, was, is []string) {
	if len(d.members) == 0 {
		return
	}
	for _, name := range was {
		if m, ok := d.members[name]; ok {
			delete(m, uid)
			d.dirty[name] = true
		}
	}
	for _, name := range is {
		if m, ok := d.members[name]; ok {
			m[uid] = struct{}{}
			d.dirty[name] = true
		}
	}
}

// sentTo returns the services, in order, to which what a waypoint does for one leads.
func sentTo(s *apiwaypoint.Service) []string {
	found := map[string]bool{serviceName(s.GetNamespace(), s.GetHostname()): true}
	var filters func([]*apiwaypoint.Filter)
	backend := func(b *apiwaypoint.Backend) {
		if b.GetService() != "" {
			found[b.GetService()] = true
		}
		filters(b.GetFilters())
	}
	filters = func(list []*apiwaypoint.Filter) {
		for _, f := range list {
			if m := f.GetMirror(); m != nil {
				backend(m.GetBackend())
			}
			if a := f.GetExternalAuth(); a != nil {
				backend(a.GetBackend())
			}
		}
	}
	for _, port := range s.GetPorts() {
		for _, table := range port.GetRoutes() {
			for _, rule := range table.GetRules() {
				filters(rule.GetFilters())
				for _, b := range rule.GetBackends() {
					backend(b)
				}
			}
		}
	}
	return slices.Sorted(maps.Keys(found))
}

// translateDestinations comes when all services and endpoints are known.
func (t *Translator) translateDestinations(u *update) {
	d := &t.destinations
	mark := func(service source.Key) {
		for _, s := range t.services(service) {
			d.dirty[s.resource.Name] = true
		}
	}
	if u.all {
		for name := range d.senders {
			d.dirty[name] = true
		}
		for name := range d.made {
			d.dirty[name] = true
		}
	}
	for name := range u.namespaces {
		if ns := t.namespaces[name]; ns != nil {
			for _, s := range ns.services {
				d.dirty[s.resource.Name] = true
			}
		}
	}
	if len(u.namespaces) > 0 {
		for name := range d.made { // of services that have gone
			if namespace, _, _ := strings.Cut(name, "/"); u.namespaces[namespace] {
				d.dirty[name] = true
			}
		}
	}
	for _, host := range u.hosts {
		for name := range d.senders {
			if _, hostname, _ := strings.Cut(name, "/"); hostFits(host, hostname) {
				d.dirty[name] = true
			}
		}
	}
	for service := range u.backends {
		mark(service)
	}
	if len(d.dirty) == 0 {
		return
	}
	backends := t.backends(u)
	for name := range d.dirty {
		t.translateDestination(u, name, backends)
	}
	clear(d.dirty)
}

func (t *Translator) translateDestination(u *update, name string, backends *Backends) {
	d := &t.destinations
	byNamespace := map[string][]string{} // aliases by the namespace of the waypoints
	s := t.serviceNamed(name)
	if s != nil {
		for waypoint := range d.senders[name] {
			byNamespace[waypoint.Namespace] = append(byNamespace[waypoint.Namespace], WaypointAlias(waypoint))
		}
	}
	var made []string
	parts := false
	for namespace, aliases := range byNamespace {
		rules := backends.traffic().destinationRules(namespace, s.key.Namespace, s.proto.GetHostname())
		for _, dr := range rules {
			parts = parts || len(dr.Spec.GetSubsets()) > 0
		}
		if parts && d.members[name] == nil {
			d.members[name] = t.membersOf(name)
		}
		body := t.destination(u, s, rules, backends)
		if body == nil {
			continue
		}
		slices.Sort(aliases)
		r := &Resource{Name: name, Aliases: aliases, Body: body}
		if namespace != s.key.Namespace {
			r.Name += "/" + namespace
		}
		made = append(made, r.Name)
		t.out.destinations.set(r.Name, r)
	}
	if !parts {
		delete(d.members, name)
	}
	for _, old := range d.made[name] {
		if !slices.Contains(made, old) {
			t.out.destinations.set(old, nil)
		}
	}
	if d.made[name] = made; len(made) == 0 {
		delete(d.made, name)
	}
	if s != nil {
		t.lead(s)
	}
}

// serviceNamed returns the service of namespace/hostname, nil when there is none.
func (t *Translator) serviceNamed(name string) *service {
	namespace, hostname, _ := strings.Cut(name, "/")
	ns := t.namespaces[namespace]
	if ns == nil {
		return nil
	}
	if svc, ok := t.options.serviceOf(hostname); ok {
		if s := ns.byName[svc.Name]; s != nil && s.resource.Name == name {
			return s
		}
	}
	for _, s := range ns.services {
		if s.resource.Name == name {
			return s
		}
	}
	return nil
}

// membersOf looks through all workloads, once for each service of which somebody
// wants a part.
func (t *Translator) membersOf(service string) map[string]struct{} {
	found := map[string]struct{}{}
	for uid, r := range t.out.addresses.newest() {
		if slices.Contains(r.Services, service) {
			found[uid] = struct{}{}
		}
	}
	return found
}

// destination returns how waypoints reach a service by these rules and its policies,
// nil when nobody says anything of it.
func (t *Translator) destination(u *update, s *service, rules []*networkingv1.DestinationRule, b *Backends) *apiwaypoint.Destination {
	out := &apiwaypoint.Destination{Namespace: s.proto.GetNamespace(), Hostname: s.proto.GetHostname()}
	var policy trafficPolicyAt = func(uint32) trafficPolicy { return trafficPolicy{} }
	for _, dr := range rules {
		if own := dr.Spec.GetTrafficPolicy(); own != nil {
			policy = func(port uint32) trafficPolicy { return trafficPolicy{}.over(own, port) }
			break
		}
	}
	var said bool
	out.Settings, out.Ports, said = b.settings(s, policy)
	if !said {
		out.Settings = nil
	}
	seen := map[string]bool{}
	for _, dr := range rules {
		for _, part := range dr.Spec.GetSubsets() {
			if seen[part.GetName()] {
				continue
			}
			seen[part.GetName()] = true
			x := &apiwaypoint.Subset{Name: part.GetName(), Workloads: t.subsetWorkloads(u, t.destinations.members[s.resource.Name], part.GetLabels())}
			if own := part.GetTrafficPolicy(); own != nil {
				x.Settings, x.Ports, _ = b.settings(s, func(port uint32) trafficPolicy { return policy(port).over(own, port) })
			}
			out.Subsets = append(out.Subsets, x)
		}
	}
	if out.Settings == nil && len(out.Ports) == 0 && len(out.Subsets) == 0 {
		return nil
	}
	return out
}

// trafficPolicyAt is the policy of a port, 0 for what is said of none.
type trafficPolicyAt func(port uint32) trafficPolicy

// settings lays over each other what there is for a service: the policy of
// DestinationRules, then the Gateway API's policies, then Tulle's own. Ports have
// settings of their own where they differ. said is false when nobody says anything of
// all ports.
func (b *Backends) settings(s *service, policy trafficPolicyAt) (all *apiwaypoint.DestinationSettings, ports []*apiwaypoint.DestinationPort, said bool) {
	all = b.portSettings(s.key, policy(0), "")
	for _, port := range s.ports {
		own := b.portSettings(s.key, policy(port.number), port.name)
		if !proto.Equal(own, all) {
			ports = append(ports, &apiwaypoint.DestinationPort{Port: port.number, Settings: own})
		}
	}
	return all, ports, !empties(all)
}

func (b *Backends) portSettings(service source.Key, policy trafficPolicy, port string) *apiwaypoint.DestinationSettings {
	x, s := b.traffic(), policy.settings()
	if p := x.tlsPolicy(service, port); p != nil {
		tls, fault := b.backendTLS(p)
		if s.Tls = tls; fault != "" {
			s.Fault = fault
		}
	}
	if list := x.budgets[service]; len(list) > 0 {
		trafficBudget(list[0], s)
	}
	if p := firstBackendPolicy(x.backends[service], service, ""); p != nil {
		backendSettings(p, s)
	}
	if port != "" {
		if p := firstBackendPolicy(x.backends[service], service, port); p != nil {
			backendSettings(p, s)
		}
	}
	return s
}

// empties reports whether a message says nothing.
func empties(m proto.Message) bool { return proto.Size(m) == 0 }
