package translate

import (
	"strconv"

	corev1 "k8s.io/api/core/v1"

	"google.golang.org/protobuf/proto"

	apiwaypoint "github.com/tulle-mesh/tulle/api/waypoint"
	"github.com/tulle-mesh/tulle/istiod-lite/source"
)

// maySkip reports whether a namespace lets node proxies go past a waypoint that has
// nothing to do for a service.
func maySkip(ns *corev1.Namespace) bool {
	if ns == nil {
		return false
	}
	yes, err := strconv.ParseBool(ns.Annotations[source.AnnotationSkipIdleWaypoint])
	return err == nil && yes
}

// idle reports whether a waypoint has no configuration for the service: no route,
// policy, check of tokens, limit or fault.
func idle(out *apiwaypoint.Service) bool {
	bare := &apiwaypoint.Service{Namespace: out.Namespace, Hostname: out.Hostname, Name: out.Name, TrustedProxies: out.TrustedProxies}
	for _, p := range out.Ports {
		bare.Ports = append(bare.Ports, &apiwaypoint.Port{Port: p.Port, Protocol: p.Protocol})
	}
	return proto.Equal(out, bare)
}

// lead has node proxies lead a service's clients to its waypoint, or past it where
// that is idle and the namespace allows it.
func (t *Translator) lead(s *service) {
	if !s.maySkip || s.proto.Waypoint == nil {
		return
	}
	r := s.resource
	if s.idle && len(t.destinations.made[r.Name]) == 0 {
		past := proto.CloneOf(s.proto)
		past.Waypoint, past.WeightedWaypoints, past.IngressUseWaypoint = nil, nil, false
		r = serviceResource(past)
	}
	t.setAddress(r.Name, r)
}
