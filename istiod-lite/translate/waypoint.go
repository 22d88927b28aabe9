package translate

import (
	"reflect"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	apiworkload "github.com/tulle-mesh/tulle/api/workload"
	"github.com/tulle-mesh/tulle/istiod-lite/source"
)

// WaypointClass is the GatewayClass of waypoints, also where it was not made.
const WaypointClass = "istio-waypoint"

// WaypointController is the controller of classes of waypoints.
const WaypointController = "istio.io/mesh-controller"

// WaypointPort is the port of the listener that says who may use a waypoint, and
// on which waypoints take the mesh's traffic.
const WaypointPort = 15008

// ConditionServing is set on a Gateway, and never taken back, once a pod of its
// waypoint was ready. From then on traffic goes to the waypoint or nowhere: a
// waypoint whose pods have all ended must not be a way past it.
const ConditionServing = "waypoint.tulle.dev/Serving"

// The reasons of the condition istio.io/WaypointBound, which are Istio's.
const (
	WaypointAccepted       = "WaypointAccepted"
	WaypointIsNotReady     = "WaypointIsNotReady"
	AttachmentDenied       = "AttachmentDenied"
	UnsupportedTrafficType = "UnsupportedTrafficType"
)

// waypoint is a Gateway that is a waypoint.
type waypoint struct {
	name    source.Name
	gateway *gatewayv1.Gateway
	// service is the name of its Service, which need not be there.
	service source.Name
	there   bool
	// account is the service account that its pods run under.
	account string
	// traffic is service, workload, all or none.
	traffic string
	// standing is set while any of its pods runs, ready or not: from before the
	// first traffic comes to it to after the last, node proxies leave to it what
	// it decides.
	standing bool
	// ready waypoints are given traffic.
	ready bool
}

// alias is the name by which a waypoint subscribes to all that is its.
func (w *waypoint) alias() string { return WaypointAlias(w.name) }

// WaypointAlias is the name by which the waypoint of a Gateway subscribes to what
// it does: the alias of all resources that are its.
func WaypointAlias(gateway source.Name) string {
	return "waypoint/" + gateway.Namespace + "/" + gateway.Name
}

// principal is what its pods prove to be.
func (w *waypoint) principal(o Options) string {
	return o.TrustDomain + "/ns/" + w.name.Namespace + "/sa/" + w.account
}

// address is how node proxies find it.
func (w *waypoint) address(o Options) *apiworkload.GatewayAddress {
	return &apiworkload.GatewayAddress{
		Destination: &apiworkload.GatewayAddress_Hostname{Hostname: &apiworkload.NamespacedHostname{
			Namespace: w.service.Namespace, Hostname: o.hostname(w.service),
		}},
		HboneMtlsPort: WaypointPort,
	}
}

// same reports whether nothing differs that a binding depends on.
func (w *waypoint) same(v *waypoint) bool {
	if w == nil || v == nil {
		return w == v
	}
	a, b := *w, *v
	a.gateway, b.gateway = nil, nil
	return a == b && (w.gateway == v.gateway || reflect.DeepEqual(w.gateway.Spec.Listeners, v.gateway.Spec.Listeners))
}

// IsWaypoint reports whether a Gateway is a waypoint of Tulle's: its class says so.
func IsWaypoint(objects *source.Objects, gw *gatewayv1.Gateway) bool {
	name := string(gw.Spec.GatewayClassName)
	if class := objects.GatewayClasses[source.Name{Name: name}]; class != nil {
		return class.Spec.ControllerName == WaypointController
	}
	return name == WaypointClass
}

// WaypointAccount returns the service account under which a waypoint's pods run,
// and under which nobody else can.
func WaypointAccount(gw *gatewayv1.Gateway) string {
	if a := gw.Annotations[source.AnnotationServiceAccount]; a != "" {
		return a
	}
	return gw.Name
}

// WaypointService returns the name of the Service, Deployment and so on that are made
// for a waypoint.
func WaypointService(gw *gatewayv1.Gateway) string {
	if name := gw.Annotations[source.AnnotationNameOverride]; name != "" {
		return name
	}
	return gw.Name
}

// AliasesOf returns the aliases of the waypoints that run under an account,
// namespace/name, in order.
func AliasesOf(objects *source.Objects, account string) []string {
	var out []string
	for name, gw := range objects.Gateways {
		if account == name.Namespace+"/"+WaypointAccount(gw) && IsWaypoint(objects, gw) {
			out = append(out, WaypointAlias(name))
		}
	}
	slices.Sort(out)
	return out
}

// newWaypoint reads all but what depends on pods; nil for a Gateway that is none.
func newWaypoint(objects *source.Objects, o Options, gw *gatewayv1.Gateway) *waypoint {
	if gw == nil || !IsWaypoint(objects, gw) {
		return nil
	}
	w := &waypoint{name: source.Name{Namespace: gw.Namespace, Name: gw.Name}, gateway: gw, account: WaypointAccount(gw), traffic: trafficType(objects, gw)}
	w.service = source.Name{Namespace: gw.Namespace, Name: WaypointService(gw)}
	for _, a := range gw.Spec.Addresses {
		// Its author runs the proxy himself and says where.
		if name, ok := o.serviceOf(a.Value); ok && name.Namespace == gw.Namespace && a.Type != nil && *a.Type == gatewayv1.HostnameAddressType {
			w.service = name
			break
		}
	}
	for _, a := range gw.Status.Addresses {
		if objects.Services[w.service] != nil {
			break
		}
		if name, ok := o.serviceOf(a.Value); ok && name.Namespace == gw.Namespace && a.Type != nil && *a.Type == gatewayv1.HostnameAddressType {
			w.service = name
			break
		}
	}
	w.there = objects.Services[w.service] != nil
	return w
}

// serviceOf reads the hostname of a Service.
func (o Options) serviceOf(hostname string) (source.Name, bool) {
	rest, ok := strings.CutSuffix(hostname, ".svc."+o.DomainSuffix)
	if !ok {
		return source.Name{}, false
	}
	name, namespace, ok := strings.Cut(rest, ".")
	return source.Name{Namespace: namespace, Name: name}, ok && name != "" && namespace != "" && !strings.Contains(namespace, ".")
}

func (o Options) hostname(service source.Name) string {
	return service.Name + "." + service.Namespace + ".svc." + o.DomainSuffix
}

// takesPod reports whether pod is one of the waypoint's: an endpoint of its
// Service under its own account.
func (w *waypoint) takesPod(objects *source.Objects, pod *corev1.Pod) bool {
	svc := objects.Services[w.service]
	return svc != nil && pod.Namespace == w.name.Namespace && len(svc.Spec.Selector) > 0 && subset(svc.Spec.Selector, pod.Labels) &&
		!source.Ended(pod) && source.ServiceAccountOf(pod) == w.account
}

// judge sets what follows from the pods of the waypoint, ready or not.
func (w *waypoint) judge(pods map[source.Name]bool) {
	w.ready = served(w.gateway)
	w.standing = w.ready || len(pods) > 0
	for _, ready := range pods {
		w.ready = w.ready || ready
	}
}

// served reports whether a pod of the waypoint was ever ready.
func served(gw *gatewayv1.Gateway) bool {
	return slices.ContainsFunc(gw.Status.Conditions, func(c metav1.Condition) bool {
		return c.Type == ConditionServing && c.Status == metav1.ConditionTrue
	})
}

// Waypoints are the waypoints of one state of a mesh. A value that WaypointsOf
// made is immutable.
type Waypoints struct {
	options Options
	objects *source.Objects
	byName  map[source.Name]*waypoint
	// pods of each waypoint, true where ready.
	pods map[source.Name]map[source.Name]bool
}

// WaypointsOf finds the waypoints of a mesh, and which of them are ready.
func WaypointsOf(objects *source.Objects, options Options) *Waypoints {
	x := newWaypoints(options.withDefaults(), objects)
	for name, gw := range objects.Gateways {
		if w := newWaypoint(objects, x.options, gw); w != nil {
			x.byName[name] = w
		}
	}
	if len(x.byName) == 0 {
		return x
	}
	x.scan(func(*waypoint) bool { return true })
	for name, w := range x.byName {
		w.judge(x.pods[name])
	}
	return x
}

func newWaypoints(o Options, objects *source.Objects) *Waypoints {
	return &Waypoints{options: o, objects: objects, byName: map[source.Name]*waypoint{}, pods: map[source.Name]map[source.Name]bool{}}
}

// scan finds the pods of the waypoints that which names.
func (x *Waypoints) scan(which func(*waypoint) bool) {
	byNamespace := map[string][]*waypoint{}
	for name, w := range x.byName {
		if which(w) {
			x.pods[name] = map[source.Name]bool{}
			byNamespace[name.Namespace] = append(byNamespace[name.Namespace], w)
		}
	}
	if len(byNamespace) == 0 {
		return
	}
	for name, pod := range x.objects.Pods {
		for _, w := range byNamespace[name.Namespace] {
			if w.takesPod(x.objects, pod) {
				x.pods[w.name][name] = ready(pod)
			}
		}
	}
}

// Ready reports whether the Gateway is a waypoint that is given traffic.
func (x *Waypoints) Ready(gateway source.Name) bool {
	w := x.byName[gateway]
	return w != nil && w.ready
}

// standing reports whether the Gateway is a waypoint that node proxies trust.
func (x *Waypoints) standing(gateway source.Name) bool {
	w := x.byName[gateway]
	return w != nil && w.standing
}

// Pods counts the pods of a waypoint and how many of them are ready.
func (x *Waypoints) Pods(gateway source.Name) (all, ready int) {
	for _, r := range x.pods[gateway] {
		all++
		if r {
			ready++
		}
	}
	return all, ready
}

// Address returns the hostname of a waypoint's Service, and false when the Gateway
// is no waypoint or has none.
func (x *Waypoints) Address(gateway source.Name) (string, bool) {
	w := x.byName[gateway]
	if w == nil || !w.there {
		return "", false
	}
	return x.options.hostname(w.service), true
}

// Service returns the Service by which a waypoint is reached, there or not.
func (x *Waypoints) Service(gateway source.Name) source.Name {
	if w := x.byName[gateway]; w != nil {
		return w.service
	}
	return source.Name{}
}

// In reports whether there are waypoints in a namespace, so that its pods matter.
func (x *Waypoints) In(namespace string) bool {
	for name := range x.byName {
		if name.Namespace == namespace {
			return true
		}
	}
	return false
}

// Covers reports whether all that a policy is bound to, its targets, is behind a
// waypoint that is ready. It is false for a policy of workloads, which has none.
func (x *Waypoints) Covers(targets []source.Key) bool {
	for _, key := range targets {
		switch key.Kind {
		case "Gateway":
			if !x.Ready(key.Name) {
				return false
			}
		case "GatewayClass":
			if !x.ClassReady(key.Name.Name) {
				return false
			}
		default:
			obj := x.objects.Object(key)
			if obj == nil {
				return false
			}
			if b, asked := x.Of(obj); !asked || !b.Bound {
				return false
			}
		}
	}
	return len(targets) > 0
}

// ClassReady reports whether there are waypoints of a GatewayClass, and all ready.
func (x *Waypoints) ClassReady(class string) bool {
	any := false
	for _, w := range x.byName {
		if string(w.gateway.Spec.GatewayClassName) == class {
			if !w.ready {
				return false
			}
			any = true
		}
	}
	return any
}
