package translate

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

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

// VirtualFaults returns why routes of a VirtualService cannot do what they say at a
// service that it is for, by the names of its rules.
func (b *Backends) VirtualFaults(vs *networkingv1.VirtualService) []string {
	var said []string
	note := func(rule, fault string) {
		if text := fmt.Sprintf("route %s: %s", rule, fault); fault != "" && !slices.Contains(said, text) {
			said = append(said, text)
		}
	}
	for _, speaks := range []apiwaypoint.Protocol{apiwaypoint.Protocol_HTTP1, apiwaypoint.Protocol_TLS, apiwaypoint.Protocol_TCP} {
		for _, host := range vs.Spec.GetHosts() {
			key, _, ok := b.hostOf(b.options.fqdn(host, vs.Namespace), vs.Namespace)
			if !ok {
				continue
			}
			for _, port := range b.portsOf(key) {
				if spoken := protocol(port); spoken != speaks && !(speaks == apiwaypoint.Protocol_HTTP1 && (spoken == apiwaypoint.Protocol_HTTP2 || spoken == apiwaypoint.Protocol_GRPC)) {
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
