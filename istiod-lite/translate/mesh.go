package translate

import (
	"cmp"
	"slices"

	"google.golang.org/protobuf/proto"

	apisecurity "github.com/tulle-mesh/tulle/api/security"
	apiworkload "github.com/tulle-mesh/tulle/api/workload"
)

// Resource is one thing that a proxy can subscribe to. It is immutable.
type Resource struct {
	// Name is the name on the wire: a workload's UID, a service's
	// namespace/hostname, a policy's namespace/name.
	Name string
	// Aliases are other names that a subscriber may ask by: network/IP of the
	// workload or of the service's virtual addresses; WaypointAlias of the waypoints
	// that a waypoint's resource is for.
	Aliases []string
	// Services are the names of the services that a workload is an endpoint of.
	// Who asks for a service needs these workloads too.
	Services []string
	// Body is a *workload.Address or a *security.Authorization, or of a waypoint's
	// resources a *waypoint.Service, Policy or Authentication.
	Body proto.Message
}

// Mesh is the translation of one Objects. It is immutable.
type Mesh struct {
	Addresses      map[string]*Resource
	Authorizations map[string]*Resource
	// WaypointServices, WaypointPolicies and WaypointAuthentications are what
	// waypoints do, enforce, and check tokens by; WaypointDestinations are how they
	// send requests, WaypointRateLimits how many, and WaypointTelemetries what they
	// tell of them. There are some as soon as a Gateway is there, before a waypoint
	// runs, for it must know them before traffic comes.
	WaypointServices        map[string]*Resource
	WaypointPolicies        map[string]*Resource
	WaypointAuthentications map[string]*Resource
	WaypointDestinations    map[string]*Resource
	WaypointRateLimits      map[string]*Resource
	WaypointTelemetries     map[string]*Resource
	// Warnings are about objects that are valid and do not do all they say.
	Warnings []Warning

	changes changes
}

// Warning is one thing that its author should know.
type Warning struct {
	// Object is "Kind namespace/name".
	Object string `json:"object"`
	// Message says what has no effect and what happens instead.
	Message string `json:"message"`
	// InStatus says that a condition in the object's status tells of it, too, where
	// somebody writes one.
	InStatus bool `json:"-"`
}

func sortWarnings(w []Warning) {
	slices.SortFunc(w, func(a, b Warning) int {
		return cmp.Or(cmp.Compare(a.Object, b.Object), cmp.Compare(a.Message, b.Message))
	})
}

func workloadResource(w *apiworkload.Workload) *Resource {
	r := &Resource{Name: w.GetUid(), Body: &apiworkload.Address{Type: &apiworkload.Address_Workload{Workload: w}}}
	if w.GetNetworkMode() != apiworkload.NetworkMode_HOST_NETWORK {
		// Many pods share a node's address, so it does not name any of them.
		for _, a := range w.GetAddresses() {
			r.Aliases = append(r.Aliases, networkAlias(w.GetNetwork(), a))
		}
	}
	for name := range w.GetServices() {
		r.Services = append(r.Services, name)
	}
	slices.Sort(r.Services)
	return r
}

func serviceResource(s *apiworkload.Service) *Resource {
	r := &Resource{Name: serviceName(s.GetNamespace(), s.GetHostname()), Body: &apiworkload.Address{Type: &apiworkload.Address_Service{Service: s}}}
	for _, a := range s.GetAddresses() {
		if a.Length == nil {
			r.Aliases = append(r.Aliases, networkAlias(a.GetNetwork(), a.GetAddress()))
		}
	}
	return r
}

func policyResource(a *apisecurity.Authorization) *Resource {
	return &Resource{Name: a.GetNamespace() + "/" + a.GetName(), Body: a}
}
