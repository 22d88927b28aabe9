package translate

import (
	"slices"

	security "istio.io/api/security/v1beta1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	telemetryv1 "istio.io/client-go/pkg/apis/telemetry/v1"

	"google.golang.org/protobuf/proto"

	apiwaypoint "github.com/tulle-mesh/tulle/api/waypoint"
	apiworkload "github.com/tulle-mesh/tulle/api/workload"
	"github.com/tulle-mesh/tulle/istiod-lite/source"
)

// Translate translates objects once.
func Translate(objects *source.Objects, options Options) *Mesh {
	return New(options).Translate(objects)
}

// Translator translates successive states of one mesh. It computes what depends
// on the objects that changed and keeps the rest, so that one changed pod costs
// about what that pod's workload does. It is not safe for concurrent use; what
// it returns is.
type Translator struct {
	options    Options
	objects    *source.Objects // translated last
	namespaces map[string]*namespace
	root       group    // of the root namespace, whose policies reach everywhere
	bindings   bindings // of policies to waypoints and services, at node proxies
	// atWaypoints are those of all policies, node proxies' or not.
	atWaypoints bindings
	waypoints   *Waypoints
	routes      routeIndex
	uses        policyUses

	requestBindings requestBindings
	requestUses     map[source.Name]map[source.Name]int // RequestAuthentications, by waypoint
	requests        map[source.Name]bool                // all of them
	limits          limitIndex                          // of RateLimitPolicies
	limitUses       map[source.Name]map[source.Name]int // of theirs, by waypoint
	made            map[source.Key]madeServices
	passed          map[string]passed // workloads behind waypoints of their own, by UID
	admissions      map[string]bool   // policies that allow waypoints
	pods            podIndex
	slices          sliceIndex
	policies        map[source.Name]policyMemo
	ready           readyEndpoints
	traffic         *traffic // of the objects translated last
	destinations    destinations

	refused map[source.Name]string // pods that do not get their waypoint, and why

	out       output
	providers *Providers

	// Of the Telemetry resources: those translated last, what was made of them, whether
	// some are bound to services, and what of them is not in effect.
	telemetrySeen   map[source.Name]*telemetryv1.Telemetry
	telemetryMade   []string
	telemetryBound  bool
	telemetryWarned []Warning
}

type policyMemo struct {
	policy   *securityv1.AuthorizationPolicy
	resource *Resource
	warnings []Warning
	classes  []string // names of the forms of a policy that is bound to a class
	// auth is how the provider of a CUSTOM policy is asked, fault why it cannot be.
	auth  *apiwaypoint.ExternalAuth
	fault string
}

// New returns a Translator that has seen nothing.
func New(options Options) *Translator {
	return &Translator{
		options:    options.withDefaults(),
		objects:    &source.Objects{},
		namespaces: map[string]*namespace{},
		waypoints:  newWaypoints(options.withDefaults(), &source.Objects{}),
		routes:     newRouteIndex(),
		uses:       policyUses{},

		requestUses: map[source.Name]map[source.Name]int{},
		requests:    map[source.Name]bool{},
		limits:      newLimitIndex(),
		limitUses:   map[source.Name]map[source.Name]int{},
		made:        map[source.Key]madeServices{},
		refused:     map[source.Name]string{},
		passed:      map[string]passed{},
		pods:        newPodIndex(),
		slices:      newSliceIndex(),
		policies:    map[source.Name]policyMemo{},
		ready:       newReadyEndpoints(),

		providers:    ProvidersOf(&source.Objects{}, options),
		destinations: newDestinations(),
		out:          newOutput(),
	}
}

// update is what one change of the mesh makes necessary.
type update struct {
	objects *source.Objects
	// Objects that changed, by kind.
	pods, slices, entries, policies, services, requests []source.Name
	limits                                              []source.Name
	telemetries                                         []source.Name
	routes                                              []source.Key
	grants                                              map[string]bool // namespaces with other ReferenceGrants
	nodes                                               map[source.Name]bool
	// namespaces to build anew, or all of them.
	namespaces map[string]bool
	all        bool
	rebind     bool // a policy's binding or a gateway changed
	steering
	gateways  bool // a gateway or a class of them changed
	providers bool // the extension providers changed
	// Found on the way: what depends on something that changed.
	dirtyPods   map[source.Name]bool
	dirtySlices map[*slice]bool
	// dirtyPolicies are those of which another set of waypoints takes care.
	dirtyPolicies map[source.Name]bool
	dirtyRequests map[source.Name]bool
	dirtyLimits   map[source.Name]bool
}

// Translate returns the mesh that objects describe. It does not keep time, so
// a caller with many changes at hand should translate only the last state.
func (t *Translator) Translate(objects *source.Objects) *Mesh {
	u := t.survey(objects)
	t.updateProviders(u)
	t.updateSlices(u)
	t.updatePods(u)
	t.resolveSlices(u)
	t.updateWaypoints(u)
	t.updateNamespaces(u)
	t.translateServices(u)
	t.translateAdmissions(u)
	t.spread(u)
	t.objects = objects
	t.translatePods(u)
	t.translateSlices(u)
	t.translateEntries(u)
	t.translateRetiring(u)
	t.translateDestinations(u)
	t.translatePolicies(u)
	t.translateRequests(u)
	t.translateLimits(u)
	t.translateTelemetry(u)
	t.out.warned = t.out.warned || u.all && len(t.requests)+len(objects.DestinationRules)+len(objects.VirtualServices) > 0 || len(u.dirtyRequests) > 0 ||
		len(u.namespaces)+len(u.routes) > 0 && len(t.requests)+len(t.limits.all) > 0 // whose targets may have come or gone
	strict := staticStrict(t.options)
	if len(objects.PeerAuthentications) > 0 {
		t.out.authorizations.set(strict.Name, strict)
	} else {
		t.out.authorizations.set(strict.Name, nil)
	}
	return t.out.mesh(t)
}

// survey sorts what changed by what it can have an effect on.
func (t *Translator) survey(objects *source.Objects) *update {
	u := &update{
		objects: objects, nodes: map[source.Name]bool{}, namespaces: map[string]bool{}, grants: map[string]bool{},
		dirtyPods: map[source.Name]bool{}, dirtySlices: map[*slice]bool{}, dirtyPolicies: map[source.Name]bool{},
		dirtyRequests: map[source.Name]bool{}, dirtyLimits: map[source.Name]bool{},
	}
	for _, key := range objects.Changes(t.objects) {
		was, is := t.objects.Object(key), objects.Object(key)
		switch key.Kind {
		case "Pod":
			u.pods = append(u.pods, key.Name)
		case "EndpointSlice":
			u.slices = append(u.slices, key.Name)
		case "WorkloadEntry":
			u.entries = append(u.entries, key.Name)
		case "Node":
			u.nodes[key.Name] = true
		case "Namespace":
			u.namespaces[key.Name.Name] = true
		case "Service", "ServiceEntry":
			if !sameMeaning(was, is) {
				u.namespaces[key.Namespace] = true
				if key.Kind == "Service" {
					u.services = append(u.services, key.Name)
				} else {
					t.traffic = nil // hosts are found in it
				}
			}
		case "HTTPRoute", "GRPCRoute", "TCPRoute", "TLSRoute":
			if !sameMeaning(was, is) {
				u.routes = append(u.routes, key)
			}
		case "ReferenceGrant":
			if !sameMeaning(was, is) {
				u.grants[key.Namespace] = true
			}
		case "AuthorizationPolicy":
			if sameMeaning(was, is) {
				break
			}
			u.policies = append(u.policies, key.Name)
			was, _ := was.(*securityv1.AuthorizationPolicy)
			is, _ := is.(*securityv1.AuthorizationPolicy)
			// The others reach workloads by their scope; waypoints are told of them.
			if picks(was) || picks(is) || len(t.waypoints.byName) > 0 {
				u.namespaces[key.Namespace] = true
			}
			u.rebind = u.rebind || bound(was) || bound(is)
		case "RequestAuthentication":
			if sameMeaning(was, is) {
				break
			}
			t.out.warned = true
			if delete(t.requests, key.Name); is != nil {
				t.requests[key.Name] = true
			}
			u.requests = append(u.requests, key.Name)
			if len(t.waypoints.byName) > 0 {
				u.namespaces[key.Namespace] = true
			}
			was, _ := was.(*securityv1.RequestAuthentication)
			is, _ := is.(*securityv1.RequestAuthentication)
			if boundRequest(was) || boundRequest(is) {
				u.rebind, u.all = true, u.all || len(t.waypoints.byName) > 0
			}
		case "DestinationRule", "VirtualService", "BackendTLSPolicy", "XBackendTrafficPolicy", "BackendPolicy", "FaultPolicy", "ConfigMap":
			if !sameMeaning(was, is) {
				t.steer(u, key, was, is)
			}
		case "RateLimitPolicy":
			if !sameMeaning(was, is) {
				u.limits = append(u.limits, key.Name)
			}
		case "Telemetry":
			u.telemetries = append(u.telemetries, key.Name)
		case "PeerAuthentication":
			if !sameMeaning(was, is) {
				u.namespaces[key.Namespace] = true
			}
		case "Gateway", "GatewayClass":
			if !sameMeaning(was, is) {
				u.rebind, u.gateways = true, true
			}
		}
	}
	// Policies of the root namespace reach into every other. So do changes of its
	// other objects, which are few.
	u.all = u.all || u.namespaces[t.options.RootNamespace]
	return u
}

// spread finds the workloads that depend on a namespace or node that changed.
func (t *Translator) spread(u *update) {
	if len(u.namespaces) == 0 && len(u.nodes) == 0 && !u.all {
		return
	}
	for name, memo := range t.pods.memos {
		if u.all || u.namespaces[name.Namespace] || u.nodes[source.Name{Name: memo.pod.Spec.NodeName}] {
			u.dirtyPods[name] = true
		}
	}
	if len(u.namespaces) == 0 && !u.all {
		return
	}
	for name, s := range t.slices.parsed {
		if u.all || u.namespaces[name.Namespace] {
			u.dirtySlices[s] = true
		}
	}
	for name := range u.objects.WorkloadEntries {
		if u.all || u.namespaces[name.Namespace] {
			u.entries = append(u.entries, name)
		}
	}
}

func (t *Translator) translatePods(u *update) {
	for name := range u.dirtyPods {
		memo, uid := t.pods.memos[name], podUID(t.options.ClusterID, name)
		if memo == nil {
			delete(t.pods.retiring, name)
			t.refuse(name, nil)
			t.setAddress(uid, nil)
			t.pass(u, uid, nil, nil)
			continue
		}
		memo.namespace = t.namespace(name.Namespace)
		memo.node = u.objects.Nodes[source.Name{Name: memo.pod.Spec.NodeName}]
		t.refuse(name, memo)
		if retiring(memo.pod) {
			t.pods.retiring[name] = memo
			t.ready.set(uid, nil)
			continue // comes last: see translateRetiring
		}
		delete(t.pods.retiring, name)
		var r *Resource
		w, own := podWorkload(t.options, memo, t.slices.pods[name])
		if w != nil {
			r = workloadResource(w)
		}
		t.setAddress(uid, r)
		t.pass(u, uid, own, w)
	}
}

// translateSlices makes workloads of endpoints that are no known pod.
func (t *Translator) translateSlices(u *update) {
	gone, made := map[string]bool{}, map[string]bool{}
	for s := range u.dirtySlices {
		for _, uid := range s.made {
			gone[uid] = true
		}
		s.made = nil
		if t.slices.parsed[s.name] != s {
			continue
		}
		ns := t.namespace(s.name.Namespace)
		for _, e := range s.others {
			uid := endpointSliceUID(t.options.ClusterID, s.name, e.Addresses[0])
			if made[uid] {
				continue
			}
			made[uid] = true
			t.setAddress(uid, workloadResource(sliceWorkload(t.options, s, e, uid, ns)))
			s.made = append(s.made, uid)
		}
	}
	for uid := range gone {
		if !made[uid] {
			t.setAddress(uid, nil)
		}
	}
}

func (t *Translator) translateEntries(u *update) {
	for _, name := range u.entries {
		var r *Resource
		var w *apiworkload.Workload
		var own *passage
		if entry := u.objects.WorkloadEntries[name]; entry != nil {
			w, own = entryWorkload(t.options, entry, t.namespace(name.Namespace))
			r = workloadResource(w)
		}
		uid := workloadEntryUID(t.options.ClusterID, name)
		t.setAddress(uid, r)
		t.pass(u, uid, own, w)
	}
}

func (t *Translator) translatePolicies(u *update) {
	for _, name := range t.policiesToTranslate(u) {
		t.out.warned = t.out.warned || len(t.policies[name].warnings) > 0
		policy := u.objects.AuthorizationPolicies[name]
		if policy == nil {
			for _, old := range t.policies[name].classes {
				t.out.authorizations.set(old, nil)
			}
			delete(t.policies, name)
			t.out.authorizations.set(name.Namespace+"/"+name.Name, nil)
			t.out.policies.set(name.Namespace+"/"+name.Name, nil)
			continue
		}
		memo := policyMemo{policy: policy}
		if policy.Spec.Action == security.AuthorizationPolicy_CUSTOM {
			memo.auth, memo.fault = t.providers.externalAuth(policy.Spec.GetProvider().GetName())
		}
		t.out.policies.set(name.Namespace+"/"+name.Name, waypointPolicy(policy, memo.auth, t.uses[name].aliases()))
		missing := Missing(u.objects, Targets(policy))
		a, warnings := authorization(t.options, policy, t.trusted(name), t.waypoints.Covers(Targets(policy)), len(missing) == len(Targets(policy)), memo.fault)
		warnings = append(warnings, boundToNothing("AuthorizationPolicy "+name.String(), missing)...)
		if memo.warnings = warnings; a != nil {
			memo.resource = policyResource(a)
			for _, r := range t.classPolicies(policy, a) {
				memo.classes = append(memo.classes, r.Name)
				t.out.authorizations.set(r.Name, r)
			}
		}
		for _, old := range t.policies[name].classes {
			if !slices.Contains(memo.classes, old) {
				t.out.authorizations.set(old, nil)
			}
		}
		memo.warnings = append(memo.warnings, t.partly(name)...)
		t.out.warned = t.out.warned || len(memo.warnings) > 0
		t.out.authorizations.set(name.Namespace+"/"+name.Name, memo.resource)
		t.policies[name] = memo
	}
}

// warnings gathers those of all parts.
func (t *Translator) warnings() []Warning {
	var all []Warning
	for _, ns := range t.namespaces {
		all = append(all, ns.warnings...)
	}
	for _, memo := range t.policies {
		all = append(all, memo.warnings...)
	}
	all = append(all, t.requestWarnings()...)
	all = append(all, t.providers.warnings()...)
	all = append(all, t.limitWarnings()...)
	all = append(all, t.telemetryWarned...)
	all = append(all, t.trafficWarnings()...)
	all = append(all, t.refusedWarnings()...)
	sortWarnings(all)
	return all
}

// sameBody reports whether two resources say the same. Names, services, and
// the aliases of addresses follow from the body.
func sameBody(a, b *Resource) bool {
	if a == b || a == nil || b == nil || a.Name != b.Name || !proto.Equal(a.Body, b.Body) {
		return a == b
	}
	if _, ok := a.Body.(*apiworkload.Address); ok {
		return true
	}
	return slices.Equal(a.Aliases, b.Aliases)
}
