package workload

import (
	"fmt"
	"math"
	"net/netip"
	"strings"
	"unicode/utf8"
	"unique"

	api "github.com/tulle-mesh/tulle/api/workload"
)

// FieldError says which field of a resource is wrong.
type FieldError struct {
	// Field is the path in the spelling of workload.proto, for example
	// "services[shop/web].ports[2].target_port".
	Field  string
	Reason string
}

func (e *FieldError) Error() string { return e.Field + ": " + e.Reason }

func fieldError(field, format string, args ...any) *FieldError {
	return &FieldError{Field: field, Reason: fmt.Sprintf(format, args...)}
}

// clip shortens what a peer sent for use in an error.
func clip(s string) string {
	const most = 64
	if len(s) <= most {
		return s
	}
	return s[:most] + "…"
}

// FromProto parses an Address: exactly one of the results is set. The error
// names the resource and, as a wrapped *FieldError, the field. Enum values that
// this proxy does not know are errors: guessing a protocol or a mode could send
// plaintext. Fields that it does not know, and extensions, are ignored, as
// they are by Istio's proxy.
func FromProto(a *api.Address) (*Workload, *Service, error) {
	switch t := a.GetType().(type) {
	case *api.Address_Workload:
		w, err := parseWorkload(t.Workload)
		if err != nil {
			return nil, nil, fmt.Errorf("workload %q: %w", clip(t.Workload.GetUid()), err)
		}
		return w, nil, nil
	case *api.Address_Service:
		s, err := parseService(t.Service)
		if err != nil {
			return nil, nil, fmt.Errorf("service %q: %w",
				clip(t.Service.GetNamespace()+"/"+t.Service.GetHostname()), err)
		}
		return nil, s, nil
	default:
		return nil, nil, fieldError("type", "neither workload nor service is set")
	}
}

// parser remembers the first error, so that the parse reads as a list of fields.
type parser struct{ err *FieldError }

func (p *parser) fail(field, format string, args ...any) {
	if p.err == nil {
		p.err = fieldError(field, format, args...)
	}
}

// result is nil, and not a typed nil, when nothing failed.
func (p *parser) result() error {
	if p.err == nil {
		return nil
	}
	return p.err
}

// text checks a short name and returns the mesh-wide shared copy of it: ten
// thousand workloads repeat few namespaces, nodes and accounts.
func (p *parser) text(field, s, def string) string {
	if s == "" {
		return def
	}
	if len(s) > maxNameBytes {
		p.fail(field, "%q is longer than %d bytes", clip(s), maxNameBytes)
		return ""
	}
	if !clean(s) {
		p.fail(field, "%q has control characters or is not UTF-8", clip(s))
		return ""
	}
	return unique.Make(s).Value()
}

func (p *parser) required(field, s string) string {
	if s == "" {
		p.fail(field, "is empty")
	}
	return p.text(field, s, "")
}

// clean reports that s can stand in logs and headers.
func clean(s string) bool {
	for i := range len(s) {
		if s[i] < 0x20 || s[i] == 0x7f {
			return false
		}
	}
	return utf8.ValidString(s)
}

func (p *parser) addr(field string, b []byte) netip.Addr {
	a, ok := netip.AddrFromSlice(b)
	if !ok {
		p.fail(field, "has %d bytes, not 4 or 16", len(b))
		return netip.Addr{}
	}
	return a.Unmap()
}

func (p *parser) port(field string, n uint32, zero bool) uint16 {
	if n > math.MaxUint16 || n == 0 && !zero {
		p.fail(field, "%d is not a port", n)
		return 0
	}
	return uint16(n)
}

// count checks a list's length before anything is allocated for it.
func (p *parser) count(field string, n, most int) bool {
	if n > most {
		p.fail(field, "has %d entries, more than %d", n, most)
		return false
	}
	return p.err == nil
}

func (p *parser) ports(field string, in []*api.Port) []Port {
	if !p.count(field, len(in), maxPorts) || len(in) == 0 {
		return nil
	}
	out := make([]Port, len(in))
	for i, port := range in {
		at := fmt.Sprintf("%s[%d]", field, i)
		app := port.GetAppProtocol()
		if _, ok := api.AppProtocol_name[int32(app)]; !ok {
			p.fail(at+".app_protocol", "unknown value %d", app)
		}
		out[i] = Port{
			Service: p.port(at+".service_port", port.GetServicePort(), false),
			Target:  p.port(at+".target_port", port.GetTargetPort(), true),
			App:     AppProtocol(app),
		}
	}
	return out
}

func (p *parser) gateway(field string, g *api.GatewayAddress) *GatewayAddress {
	if g == nil {
		return nil
	}
	out := &GatewayAddress{Port: p.port(field+".hbone_mtls_port", g.GetHboneMtlsPort(), true)}
	if out.Port == 0 {
		out.Port = DefaultTunnelPort
	}
	switch d := g.GetDestination().(type) {
	case *api.GatewayAddress_Hostname:
		out.Hostname.Namespace = p.required(field+".hostname.namespace", d.Hostname.GetNamespace())
		out.Hostname.Hostname = p.required(field+".hostname.hostname", d.Hostname.GetHostname())
	case *api.GatewayAddress_Address:
		out.Network = p.text(field+".address.network", d.Address.GetNetwork(), "")
		out.Addr = p.addr(field+".address.address", d.Address.GetAddress())
		if d.Address.Length != nil && int(d.Address.GetLength()) != out.Addr.BitLen() {
			p.fail(field+".address.length", "%d is not a single address", d.Address.GetLength())
		}
	default:
		// A waypoint that we do not understand must not be skipped.
		p.fail(field+".destination", "is not set")
	}
	return out
}

// ParseServiceKey splits "namespace/hostname".
func ParseServiceKey(s string) (ServiceKey, bool) {
	namespace, hostname, ok := strings.Cut(s, "/")
	ok = ok && namespace != "" && hostname != "" && !strings.Contains(hostname, "/")
	return ServiceKey{Namespace: namespace, Hostname: hostname}, ok
}
