package translate

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	networking "istio.io/api/networking/v1alpha3"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	corev1 "k8s.io/api/core/v1"

	apiwaypoint "github.com/tulle-mesh/tulle/api/waypoint"
	"github.com/tulle-mesh/tulle/istiod-lite/source"
)

// VirtualGaps returns clauses on what of a VirtualService waypoints do not do.
func VirtualGaps(vs *networkingv1.VirtualService) []string {
	var gaps []string
	note := func(path, format string, args ...any) { gaps = append(gaps, path+": "+fmt.Sprintf(format, args...)) }
	const never = "waypoints do not know it: the match never holds"
	for i, r := range vs.Spec.GetHttp() {
		path := fmt.Sprintf("spec.http[%d]", i)
		for j, m := range r.GetMatch() {
			path := fmt.Sprintf("%s.match[%d]", path, j)
			if len(m.GetSourceLabels()) > 0 {
				note(path+".sourceLabels", never)
			}
			if m.GetStatPrefix() != "" {
				note(path+".statPrefix", "has no effect")
			}
			if _, fault := virtualMatch(m); fault != "" {
				note(path, "%s: what the route takes gets 500", fault)
			}
		}
		if r.GetDelegate() != nil {
			note(path+".delegate", "waypoints follow none: what the route takes gets 500")
		}
		for word := range strings.SplitSeq(strings.ReplaceAll(r.GetRetries().GetRetryOn(), " ", ""), ",") {
			if _, err := strconv.ParseUint(word, 10, 16); word != "" && err != nil && !slices.Contains(retryWords, word) {
				note(path+".retries.retryOn", "%q has no effect", word)
			}
		}
	}
	for i, r := range vs.Spec.GetTls() {
		for j, m := range r.GetMatch() {
			path := fmt.Sprintf("spec.tls[%d].match[%d]", i, j)
			if len(m.GetSourceLabels()) > 0 {
				note(path+".sourceLabels", never)
			}
			if len(m.GetDestinationSubnets()) > 0 {
				note(path+".destinationSubnets", never)
			}
		}
	}
	for i, r := range vs.Spec.GetTcp() {
		for j, m := range r.GetMatch() {
			path := fmt.Sprintf("spec.tcp[%d].match[%d]", i, j)
			if len(m.GetSourceLabels()) > 0 {
				note(path+".sourceLabels", never)
			}
			if len(m.GetDestinationSubnets()) > 0 {
				note(path+".destinationSubnets", never)
			}
			if m.GetSourceSubnet() != "" {
				note(path+".sourceSubnet", never)
			}
		}
	}
	return gaps
}

// VirtualFaults returns clauses on why routes of a VirtualService cannot do what they say
// at a service that it is for, by the names of its rules, and on hosts of it that no
// service has while another one is there.
func (b *Backends) VirtualFaults(x *Waypoints, vs *networkingv1.VirtualService) []string {
	var said []string
	note := func(rule, fault string) {
		if fault == "" {
			return
		}
		if text := fmt.Sprintf("route %s: %s: its share gets 500", rule, fault); !slices.Contains(said, text) {
			said = append(said, text)
		}
	}
	waypoint := vs.Namespace
	var lost []string
	for i, host := range vs.Spec.GetHosts() {
		host = b.options.fqdn(host, vs.Namespace)
		key, _, ok := b.hostOf(host, vs.Namespace)
		if !ok && !strings.HasPrefix(host, "*") {
			lost = append(lost, fmt.Sprintf("spec.hosts[%d]: no service has the host %s", i, host))
		} else if at, bound := b.waypointOf(x, key); ok && bound {
			waypoint = at.Namespace
		}
	}
	if len(lost) < len(vs.Spec.GetHosts()) {
		said = lost // of none, the verdict tells
	}
	subset := func(path string, d *networking.Destination) {
		if d.GetSubset() == "" {
			return
		}
		host := b.options.fqdn(d.GetHost(), vs.Namespace)
		key, _, ok := b.hostOf(host, vs.Namespace)
		if !ok {
			return // told as a fault of the route
		}
		for _, dr := range b.traffic().destinationRules(waypoint, key.Namespace, host) {
			if slices.ContainsFunc(dr.Spec.GetSubsets(), func(s *networking.Subset) bool { return s.GetName() == d.GetSubset() }) {
				return
			}
		}
		said = append(said, fmt.Sprintf("%s.subset: no DestinationRule of %s has a subset %s: its share gets 503", path, host, d.GetSubset()))
	}
	for i, r := range vs.Spec.GetHttp() {
		for j, d := range r.GetRoute() {
			subset(fmt.Sprintf("spec.http[%d].route[%d].destination", i, j), d.GetDestination())
		}
	}
	for i, r := range vs.Spec.GetTls() {
		for j, d := range r.GetRoute() {
			subset(fmt.Sprintf("spec.tls[%d].route[%d].destination", i, j), d.GetDestination())
		}
	}
	for i, r := range vs.Spec.GetTcp() {
		for j, d := range r.GetRoute() {
			subset(fmt.Sprintf("spec.tcp[%d].route[%d].destination", i, j), d.GetDestination())
		}
	}
	for _, speaks := range []apiwaypoint.Protocol{apiwaypoint.Protocol_HTTP1, apiwaypoint.Protocol_TLS, apiwaypoint.Protocol_TCP} {
		for _, host := range vs.Spec.GetHosts() {
			key, _, ok := b.hostOf(b.options.fqdn(host, vs.Namespace), vs.Namespace)
			if !ok {
				continue
			}
			for _, port := range b.portsOf(key) {
				spoken := protocol(port)
				switch spoken {
				case apiwaypoint.Protocol_HTTP2, apiwaypoint.Protocol_GRPC:
					spoken = apiwaypoint.Protocol_HTTP1
				case apiwaypoint.Protocol_UNKNOWN:
					spoken = apiwaypoint.Protocol_TCP
				}
				if spoken != speaks {
					continue
				}
				for _, table := range virtualTables(vs, port, speaks, b) {
					for _, rule := range table.GetRules() {
						note(rule.GetRef().GetRule(), rule.GetFault())
						for _, backend := range rule.GetBackends() {
							note(rule.GetRef().GetRule(), backend.GetFault())
						}
					}
				}
			}
		}
	}
	return said
}

// portsOf returns the TCP ports of a service.
func (b *Backends) portsOf(key source.Key) []servicePort {
	switch obj := b.objects.Object(key).(type) {
	case *corev1.Service:
		return kubernetesPorts(obj)
	case *networkingv1.ServiceEntry:
		return entryPorts(obj)
	}
	return nil
}
