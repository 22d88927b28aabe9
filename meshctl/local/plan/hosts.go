package plan

import (
	"fmt"
	"net/netip"
	"strings"

	networkingv1 "istio.io/api/networking/v1"
)

const clusterDomain = "cluster.local"

// Hosts is the hosts file of pods in namespace: the local mesh has no DNS
// server, so every name that a cluster's DNS would know is a line here. pod may
// be nil.
func (p *Plan) Hosts(namespace string, pod *Pod, ready func(PodKey) bool) string {
	var b strings.Builder
	b.WriteString("# Written by meshctl local; changes are overwritten.\n")
	b.WriteString("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n")
	line := func(ip netip.Addr, names ...string) {
		if ip.IsValid() {
			fmt.Fprintf(&b, "%s\t%s\n", ip, strings.Join(names, " "))
		}
	}
	if pod != nil {
		line(pod.IPv4, pod.Hostname())
		line(pod.IPv6, pod.Hostname())
	}
	for _, s := range p.Services {
		names := serviceNames(s.Name, s.Namespace, namespace)
		if s.Object.Spec.ClusterIP != "None" {
			line(s.IPv4, names...)
			line(s.IPv6, names...)
			continue
		}
		for _, backend := range p.backends(s, ready) {
			line(backend.IPv4, names...)
			line(backend.IPv6, names...)
		}
	}
	for _, q := range p.Pods {
		names := podNames(q, namespace)
		line(q.IPv4, names...)
		line(q.IPv6, names...)
	}
	for _, o := range p.Others {
		entry, ok := o.Value.(*networkingv1.ServiceEntry)
		if !ok {
			continue
		}
		for _, ip := range entryAddresses(entry) {
			for _, host := range entry.GetHosts() {
				if !strings.Contains(host, "*") {
					line(ip, host)
				}
			}
		}
	}
	return b.String()
}

// Hostname is what the pod calls itself.
func (p *Pod) Hostname() string {
	if h := p.Object.Spec.Hostname; h != "" {
		return h
	}
	return p.Name
}

// serviceNames lists the names of a service, long ones first: the first is what
// a reverse look-up answers.
func serviceNames(name, namespace, from string) []string {
	base := name + "." + namespace
	names := []string{base + ".svc." + clusterDomain, base + ".svc", base}
	if namespace == from {
		names = append(names, name)
	}
	return names
}

// podNames lists the names of a pod: those that a subdomain gives it, as in a
// cluster, and beside them its own name with its namespace, which a cluster
// does not have and which costs nothing here.
func podNames(p *Pod, from string) []string {
	var names []string
	host := p.Hostname()
	if sub := p.Object.Spec.Subdomain; sub != "" {
		base := host + "." + sub + "." + p.Namespace
		names = append(names, base+".svc."+clusterDomain, base+".svc", base)
		if p.Namespace == from {
			names = append(names, host+"."+sub)
		}
	}
	return append(names, p.Name+"."+p.Namespace+".pod")
}

func entryAddresses(e *networkingv1.ServiceEntry) []netip.Addr {
	var list []netip.Addr
	add := func(text string) {
		if prefix, err := netip.ParsePrefix(text); err == nil && prefix.IsSingleIP() {
			list = append(list, prefix.Addr())
		} else if ip, err := netip.ParseAddr(text); err == nil {
			list = append(list, ip)
		}
	}
	for _, a := range e.GetAddresses() {
		add(a)
	}
	if len(list) == 0 {
		for _, ep := range e.GetEndpoints() {
			add(ep.GetAddress())
		}
	}
	return list
}
