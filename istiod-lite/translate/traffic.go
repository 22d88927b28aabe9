package translate

import (
	"cmp"
	"slices"
	"strings"

	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayxv1alpha1 "sigs.k8s.io/gateway-api/apisx/v1alpha1"

	policyv1alpha1 "github.com/tulle-mesh/tulle/api/policy/v1alpha1"
	"github.com/tulle-mesh/tulle/istiod-lite/source"
)

// traffic is what operators write of traffic beside routes, found by what it is
// about. It is immutable; a change of any of it makes a new one, for it is quickly
// made and seldom needed.
type traffic struct {
	options Options
	// DestinationRules and VirtualServices, by their namespace.
	rules    map[string]*byHost[*networkingv1.DestinationRule]
	virtuals map[string]*byHost[*networkingv1.VirtualService]
	// entries are ServiceEntries by their hosts, in the order of names.
	entries map[string][]source.Key
	// The others are found by their targets: the older first, then by name.
	tls      map[source.Key][]*gatewayv1.BackendTLSPolicy
	budgets  map[source.Key][]*gatewayxv1alpha1.XBackendTrafficPolicy
	backends map[source.Key][]*policyv1alpha1.BackendPolicy
	faults   map[source.Key][]*policyv1alpha1.FaultPolicy
}

func trafficOf(objects *source.Objects, o Options) *traffic {
	x := &traffic{
		options: o, rules: map[string]*byHost[*networkingv1.DestinationRule]{}, virtuals: map[string]*byHost[*networkingv1.VirtualService]{},
		entries: map[string][]source.Key{}, tls: map[source.Key][]*gatewayv1.BackendTLSPolicy{}, budgets: map[source.Key][]*gatewayxv1alpha1.XBackendTrafficPolicy{},
		backends: map[source.Key][]*policyv1alpha1.BackendPolicy{}, faults: map[source.Key][]*policyv1alpha1.FaultPolicy{},
	}
	for _, dr := range objects.DestinationRules {
		if dr.Spec.GetWorkloadSelector() == nil {
			fileByHost(x.rules, dr.Namespace, o.fqdn(dr.Spec.GetHost(), dr.Namespace), dr)
		}
	}
	for _, vs := range objects.VirtualServices {
		if !inMesh(vs.Spec.GetGateways()) {
			continue
		}
		for _, host := range vs.Spec.GetHosts() {
			fileByHost(x.virtuals, vs.Namespace, o.fqdn(host, vs.Namespace), vs)
		}
	}
	for name, se := range objects.ServiceEntries {
		for _, host := range se.Spec.GetHosts() {
			x.entries[host] = append(x.entries[host], source.Key{Kind: "ServiceEntry", Name: name})
		}
	}
	for _, p := range objects.BackendTLSPolicies {
		for _, key := range policyTargets(p) {
			x.tls[key] = append(x.tls[key], p)
		}
	}
	for _, p := range objects.BackendTrafficPolicies {
		for _, key := range policyTargets(p) {
			x.budgets[key] = append(x.budgets[key], p)
		}
	}
	for _, p := range objects.BackendPolicies {
		for _, key := range policyTargets(p) {
			x.backends[key] = append(x.backends[key], p)
		}
	}
	for _, p := range objects.FaultPolicies {
		for _, key := range policyTargets(p) {
			x.faults[key] = append(x.faults[key], p)
		}
	}
	for _, index := range x.rules {
		index.sort()
	}
	for _, index := range x.virtuals {
		index.sort()
	}
	for _, keys := range x.entries {
		slices.SortFunc(keys, func(a, b source.Key) int { return compareNames(a.Name, b.Name) })
	}
	sortByAge(x.tls)
	sortByAge(x.budgets)
	sortByAge(x.backends)
	sortByAge(x.faults)
	return x
}

// policyTargets returns what a policy says to apply to, each once.
func policyTargets(obj metav1.Object) []source.Key {
	var keys []source.Key
	add := func(group, kind, name string) {
		if isService(group, kind) || group == gatewayv1.GroupName && (kind == "HTTPRoute" || kind == "GRPCRoute") {
			if key := (source.Key{Kind: kind, Name: source.Name{Namespace: obj.GetNamespace(), Name: name}}); !slices.Contains(keys, key) {
				keys = append(keys, key)
			}
		}
	}
	switch p := obj.(type) {
	case *gatewayv1.BackendTLSPolicy:
		for _, t := range p.Spec.TargetRefs {
			add(string(t.Group), string(t.Kind), string(t.Name))
		}
	case *gatewayxv1alpha1.XBackendTrafficPolicy:
		for _, t := range p.Spec.TargetRefs {
			add(string(t.Group), string(t.Kind), string(t.Name))
		}
	case *policyv1alpha1.BackendPolicy:
		for _, t := range p.Spec.TargetRefs {
			add(t.Group, t.Kind, t.Name)
		}
	case *policyv1alpha1.FaultPolicy:
		for _, t := range p.Spec.TargetRefs {
			add(t.Group, t.Kind, t.Name)
		}
	}
	return keys
}

func sortByAge[K comparable, V metav1.Object](m map[K][]V) {
	for _, list := range m {
		slices.SortFunc(list, compareAge[V])
	}
}

func compareAge[V metav1.Object](a, b V) int {
	x, y := a.GetCreationTimestamp(), b.GetCreationTimestamp()
	return cmp.Or(x.Compare(y.Time), cmp.Compare(a.GetNamespace(), b.GetNamespace()), cmp.Compare(a.GetName(), b.GetName()))
}

// byHost finds objects of one namespace by the hosts that they are for.
type byHost[V metav1.Object] struct {
	exact map[string][]V
	wild  map[string][]V // by what stands behind the "*"
}

func fileByHost[V metav1.Object](m map[string]*byHost[V], namespace, host string, v V) {
	x := m[namespace]
	if x == nil {
		x = &byHost[V]{exact: map[string][]V{}, wild: map[string][]V{}}
		m[namespace] = x
	}
	if suffix, ok := strings.CutPrefix(host, "*"); ok {
		x.wild[suffix] = append(x.wild[suffix], v)
	} else {
		x.exact[host] = append(x.exact[host], v)
	}
}

func (x *byHost[V]) sort() {
	sortByAge(x.exact)
	sortByAge(x.wild)
}

// find returns the objects of the host that names hostname most exactly, the oldest
// first, and that host.
func (x *byHost[V]) find(hostname string, counts func(V) bool) (list []V, host string) {
	if x == nil {
		return nil, ""
	}
	filter := func(all []V) []V {
		var out []V
		for _, v := range all {
			if counts(v) {
				out = append(out, v)
			}
		}
		return out
	}
	if list := filter(x.exact[hostname]); len(list) > 0 {
		return list, hostname
	}
	for i := range len(hostname) + 1 { // the longest suffix first
		if all := x.wild[hostname[i:]]; len(all) > 0 {
			if list := filter(all); len(list) > 0 {
				return list, "*" + hostname[i:]
			}
		}
	}
	return nil, ""
}

// hostFits reports whether a host, resolved, names hostname.
func hostFits(host, hostname string) bool {
	if suffix, ok := strings.CutPrefix(host, "*"); ok {
		return strings.HasSuffix(hostname, suffix)
	}
	return host == hostname
}

// fqdn completes a short name of a service with a namespace, as Istio does.
func (o Options) fqdn(host, namespace string) string {
	if host == "" || strings.Contains(host, ".") || strings.HasPrefix(host, "*") {
		return strings.ToLower(host)
	}
	return o.hostname(source.Name{Namespace: namespace, Name: strings.ToLower(host)})
}

// inMesh reports whether gateways of a VirtualService mean the mesh.
func inMesh(gateways []string) bool { return len(gateways) == 0 || slices.Contains(gateways, "mesh") }

// visible reports whether what a namespace exports is seen in another.
func visible(exportTo []string, from, to string) bool {
	if from == to || len(exportTo) == 0 {
		return true
	}
	return slices.Contains(exportTo, "*") || slices.Contains(exportTo, to)
}

// hostOf returns the object that a host of the mesh is, and the host's service as
// namespace/hostname: a Service, or a ServiceEntry of the namespace or another.
func (b *Backends) hostOf(host, namespace string) (source.Key, string, bool) {
	if name, ok := b.options.serviceOf(host); ok {
		key := source.Key{Kind: "Service", Name: name}
		return key, serviceName(name.Namespace, host), b.objects.Services[name] != nil
	}
	keys := b.traffic().entries[host]
	if len(keys) == 0 {
		return source.Key{}, "", false
	}
	key := keys[0]
	for _, k := range keys {
		if k.Namespace == namespace {
			key = k
			break
		}
	}
	return key, serviceName(key.Namespace, host), true
}
