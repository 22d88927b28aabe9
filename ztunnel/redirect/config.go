package redirect

import (
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// Ports to which connections are redirected, and the one that is not.
const (
	portOutbound = 15001
	portInbound  = 15006
	portHBONE    = 15008
	portDNS      = 15053
)

// Policy routing of answers to connections with a spoofed source: what carries
// the inbound mark is delivered to this machine whatever its address.
const (
	routeTable     = 100
	rulePreference = 32764
)

// dnsZone is the connection-tracking zone of the proxy's own DNS queries, apart
// from the application's: both may use the same ports and addresses.
const dnsZone = 1

// maxInterfaces bounds Config.VirtualInterfaces; a pod has one or two.
const maxInterfaces = 16

// Config chooses variants of the rules. The zero value captures outbound and
// inbound TCP.
type Config struct {
	// ProbeSources are addresses from which kubelet's probes come after the host
	// has rewritten their source; connections from and to them pass. Whoever can
	// send from such an address reaches the pod in plaintext. None by default.
	ProbeSources []netip.Addr
	// DNS captures the pod's DNS queries to port 15053.
	DNS bool
	// OutboundOnly leaves inbound connections alone, for ingress gateways
	// (annotation ambient.istio.io/bypass-inbound-capture).
	OutboundOnly bool
	// VirtualInterfaces are interfaces of virtual machines inside the pod, whose
	// traffic arrives in prerouting and is outbound all the same.
	VirtualInterfaces []string
}

func (c Config) validate() error {
	for _, a := range c.ProbeSources {
		if !a.IsValid() || a.Is4In6() || a.Zone() != "" {
			return fmt.Errorf("probe source %v is not a plain IPv4 or IPv6 address", a)
		}
	}
	if len(c.VirtualInterfaces) > maxInterfaces {
		return fmt.Errorf("%d virtual interfaces, more than %d", len(c.VirtualInterfaces), maxInterfaces)
	}
	for i, name := range c.VirtualInterfaces {
		if name == "" || len(name) >= unix.IFNAMSIZ || slices.Contains(c.VirtualInterfaces[:i], name) {
			return fmt.Errorf("virtual interface %q is no interface name or is listed twice", name)
		}
	}
	return nil
}
