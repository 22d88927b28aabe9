package source

import (
	"maps"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// kindNames are the kinds of Objects.
var kindNames = []string{
	"Namespace", "Node", "Pod", "Service", "ServiceAccount", "EndpointSlice", "AuthorizationPolicy", "PeerAuthentication", "RequestAuthentication",
	"ServiceEntry", "WorkloadEntry", "Gateway", "GatewayClass", "HTTPRoute", "GRPCRoute",
	"TCPRoute", "TLSRoute", "ReferenceGrant", "ConfigMap", "DestinationRule", "VirtualService", "BackendTLSPolicy", "XBackendTrafficPolicy", "FaultPolicy", "BackendPolicy",
	"RateLimitPolicy", "Telemetry",
}

// table is one of the maps of Objects, whatever its objects are.
type table interface {
	get(Name) metav1.Object
	// put stores obj, or removes what is there when obj is nil.
	put(Name, metav1.Object)
	// copy makes the table one that nobody else holds.
	copy()
	len() int
	names(yield func(Name) bool)
	// differences calls changed for each name that before, a table of the same
	// kind, holds otherwise.
	differences(before table, changed func(Name))
}

// table returns the table of the kind, nil when there is no such kind.
func (o *Objects) table(kind string) table {
	switch kind {
	case "Namespace":
		return tableOf(&o.Namespaces)
	case "Node":
		return tableOf(&o.Nodes)
	case "Pod":
		return tableOf(&o.Pods)
	case "Service":
		return tableOf(&o.Services)
	case "ServiceAccount":
		return tableOf(&o.ServiceAccounts)
	case "EndpointSlice":
		return tableOf(&o.EndpointSlices)
	case "AuthorizationPolicy":
		return tableOf(&o.AuthorizationPolicies)
	case "PeerAuthentication":
		return tableOf(&o.PeerAuthentications)
	case "RequestAuthentication":
		return tableOf(&o.RequestAuthentications)
	case "ServiceEntry":
		return tableOf(&o.ServiceEntries)
	case "WorkloadEntry":
		return tableOf(&o.WorkloadEntries)
	case "Gateway":
		return tableOf(&o.Gateways)
	case "GatewayClass":
		return tableOf(&o.GatewayClasses)
	case "HTTPRoute":
		return tableOf(&o.HTTPRoutes)
	case "GRPCRoute":
		return tableOf(&o.GRPCRoutes)
	case "TCPRoute":
		return tableOf(&o.TCPRoutes)
	case "TLSRoute":
		return tableOf(&o.TLSRoutes)
	case "ReferenceGrant":
		return tableOf(&o.ReferenceGrants)
	case "ConfigMap":
		return tableOf(&o.ConfigMaps)
	case "DestinationRule":
		return tableOf(&o.DestinationRules)
	case "VirtualService":
		return tableOf(&o.VirtualServices)
	case "BackendTLSPolicy":
		return tableOf(&o.BackendTLSPolicies)
	case "XBackendTrafficPolicy":
		return tableOf(&o.BackendTrafficPolicies)
	case "FaultPolicy":
		return tableOf(&o.FaultPolicies)
	case "BackendPolicy":
		return tableOf(&o.BackendPolicies)
	case "RateLimitPolicy":
		return tableOf(&o.RateLimitPolicies)
	case "Telemetry":
		return tableOf(&o.Telemetries)
	}
	return nil
}

type object interface {
	comparable
	metav1.Object
}

type tableAt[V object] struct{ at *map[Name]V }

func tableOf[V object](at *map[Name]V) table { return tableAt[V]{at} }

func (t tableAt[V]) get(name Name) metav1.Object {
	if v, ok := (*t.at)[name]; ok {
		return v
	}
	return nil
}

func (t tableAt[V]) put(name Name, obj metav1.Object) {
	if v, ok := obj.(V); ok {
		(*t.at)[name] = v
	} else {
		delete(*t.at, name)
	}
}

func (t tableAt[V]) copy()    { *t.at = maps.Clone(*t.at) }
func (t tableAt[V]) len() int { return len(*t.at) }

func (t tableAt[V]) names(yield func(Name) bool) {
	for name := range *t.at {
		if !yield(name) {
			return
		}
	}
}

func (t tableAt[V]) differences(before table, changed func(Name)) {
	a, b := *before.(tableAt[V]).at, *t.at
	for name, v := range b {
		if old, ok := a[name]; !ok || old != v {
			changed(name)
		}
	}
	for name := range a {
		if _, ok := b[name]; !ok {
			changed(name)
		}
	}
}

// Object returns the object of that kind and name, nil when there is none.
func (o *Objects) Object(key Key) metav1.Object {
	if t := o.table(key.Kind); t != nil {
		return t.get(key.Name)
	}
	return nil
}

// Keys returns the keys of all objects of the kind, in no order.
func (o *Objects) Keys(kind string) []Key {
	t := o.table(kind)
	if t == nil {
		return nil
	}
	keys := make([]Key, 0, t.len())
	for name := range t.names {
		keys = append(keys, Key{kind, name})
	}
	return keys
}

func (o *Objects) count(kind string) int {
	if t := o.table(kind); t != nil {
		return t.len()
	}
	return 0
}
