package source

import (
	"net/netip"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	networking "istio.io/api/networking/v1alpha3"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func checkServiceEntry(se *networkingv1.ServiceEntry) field.ErrorList {
	var errs field.ErrorList
	path, spec := field.NewPath("spec"), &se.Spec
	switch n := len(spec.Hosts); {
	case n == 0:
		errs = append(errs, field.Required(path.Child("hosts"), "a ServiceEntry needs a host"))
	case n > maxHosts:
		errs = append(errs, field.TooMany(path.Child("hosts"), n, maxHosts))
	}
	hosts := map[string]bool{}
	wildcard := false
	for i, h := range spec.Hosts {
		path := path.Child("hosts").Index(i)
		errs = append(errs, checkHostname(h, path)...)
		if hosts[h] {
			errs = append(errs, field.Duplicate(path, h))
		}
		hosts[h] = true
		wildcard = wildcard || strings.HasPrefix(h, "*")
	}
	for i, a := range spec.Addresses {
		errs = append(errs, checkBlock(a, path.Child("addresses").Index(i))...)
	}
	errs = append(errs, checkEntryPorts(spec.Ports, path.Child("ports"))...)
	for i, s := range spec.SubjectAltNames {
		if _, err := spiffeid.FromString(s); err != nil {
			errs = append(errs, field.Invalid(path.Child("subjectAltNames").Index(i), s, "must be a SPIFFE ID, as spiffe://cluster.local/ns/shop/sa/api"))
		}
	}
	if sel := spec.WorkloadSelector; sel != nil {
		errs = append(errs, checkLabelMap(sel.Labels, path.Child("workloadSelector", "labels"))...)
		if len(sel.Labels) == 0 {
			errs = append(errs, field.Required(path.Child("workloadSelector", "labels"), "an empty selector selects nothing"))
		}
		if len(spec.Endpoints) > 0 {
			errs = append(errs, field.Forbidden(path.Child("endpoints"), "endpoints and workloadSelector exclude each other"))
		}
	}
	if n := len(spec.Endpoints); n > maxEndpoints {
		errs = append(errs, field.TooMany(path.Child("endpoints"), n, maxEndpoints))
	}
	resolution := path.Child("resolution")
	switch spec.Resolution {
	case networking.ServiceEntry_NONE:
		if len(spec.Endpoints) > 0 {
			errs = append(errs, field.Forbidden(path.Child("endpoints"), "resolution NONE connects to the address that the client asked for; use STATIC"))
		}
	case networking.ServiceEntry_STATIC:
		if len(spec.Endpoints) == 0 && spec.WorkloadSelector == nil {
			errs = append(errs, field.Required(path.Child("endpoints"), "resolution STATIC needs endpoints or a workloadSelector"))
		}
	case networking.ServiceEntry_DNS, networking.ServiceEntry_DNS_ROUND_ROBIN:
		if wildcard && len(spec.Endpoints) == 0 {
			errs = append(errs, field.Invalid(resolution, spec.Resolution.String(), "a wildcard host cannot be resolved; name endpoints"))
		}
		if spec.WorkloadSelector != nil {
			errs = append(errs, field.Forbidden(path.Child("workloadSelector"), "only resolution STATIC selects workloads"))
		}
	default:
		errs = append(errs, field.NotSupported(resolution, spec.Resolution.String(), []string{"NONE", "STATIC", "DNS", "DNS_ROUND_ROBIN"}))
	}
	portNames := map[string]bool{}
	for _, p := range spec.Ports {
		portNames[p.GetName()] = true
	}
	for i, e := range spec.Endpoints {
		path := path.Child("endpoints").Index(i)
		errs = append(errs, checkEntry(e, path, spec.Resolution != networking.ServiceEntry_STATIC)...)
		for name := range e.GetPorts() {
			if !portNames[name] {
				errs = append(errs, field.Invalid(path.Child("ports").Key(name), name, "no port of the ServiceEntry has this name"))
			}
		}
	}
	return append(errs, checkTrafficAnnotation(se.Annotations)...)
}

func checkEntryPorts(ports []*networking.ServicePort, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if len(ports) > maxPorts {
		errs = append(errs, field.TooMany(path, len(ports), maxPorts))
	}
	names, numbers := map[string]bool{}, map[uint32]bool{}
	for i, p := range ports {
		path := path.Index(i)
		errs = append(errs, checkPort(int64(p.GetNumber()), path.Child("number"))...)
		if numbers[p.GetNumber()] {
			errs = append(errs, field.Duplicate(path.Child("number"), p.GetNumber()))
		}
		numbers[p.GetNumber()] = true
		switch {
		case p.GetName() == "":
			errs = append(errs, field.Required(path.Child("name"), ""))
		case names[p.GetName()]:
			errs = append(errs, field.Duplicate(path.Child("name"), p.GetName()))
		default:
			for _, msg := range validation.IsDNS1123Label(strings.ToLower(p.GetName())) {
				errs = append(errs, field.Invalid(path.Child("name"), p.GetName(), msg))
			}
		}
		names[p.GetName()] = true
		if p.GetTargetPort() != 0 {
			errs = append(errs, checkPort(int64(p.GetTargetPort()), path.Child("targetPort"))...)
		}
		errs = append(errs, notSupported(path.Child("protocol"), strings.ToUpper(p.GetProtocol()),
			"", "TCP", "TLS", "HTTP", "HTTPS", "HTTP2", "GRPC", "GRPC-WEB", "MONGO", "MYSQL", "REDIS", "UDP")...)
	}
	return errs
}

func checkWorkloadEntry(we *networkingv1.WorkloadEntry) field.ErrorList {
	errs := checkEntry(&we.Spec, field.NewPath("spec"), true)
	if t, ok := we.Labels[LabelTunnel]; ok {
		errs = append(errs, notSupported(field.NewPath("metadata", "labels").Key(LabelTunnel), t, "http", "none")...)
	}
	return errs
}

func checkEntry(e *networking.WorkloadEntry, path *field.Path, hostname bool) field.ErrorList {
	var errs field.ErrorList
	address := path.Child("address")
	switch _, err := netip.ParseAddr(e.GetAddress()); {
	case e.GetAddress() == "":
		errs = append(errs, field.Required(address, "an endpoint needs an address"))
	case strings.HasPrefix(e.GetAddress(), "unix:"):
		errs = append(errs, field.Invalid(address, e.GetAddress(), "Unix sockets cannot be reached from the node proxy"))
	case err == nil:
		errs = append(errs, checkIP(e.GetAddress(), address)...)
	case !hostname:
		errs = append(errs, field.Invalid(address, e.GetAddress(), "must be an IP address where resolution is STATIC"))
	default:
		errs = append(errs, checkHostname(e.GetAddress(), address)...)
		if strings.HasPrefix(e.GetAddress(), "*") {
			errs = append(errs, field.Invalid(address, e.GetAddress(), "a wildcard cannot be resolved"))
		}
	}
	for name, port := range e.GetPorts() {
		errs = append(errs, checkPort(int64(port), path.Child("ports").Key(name))...)
	}
	errs = append(errs, checkLabelMap(e.GetLabels(), path.Child("labels"))...)
	errs = append(errs, checkServiceAccountName(e.GetServiceAccount(), path.Child("serviceAccount"))...)
	if strings.Count(e.GetLocality(), "/") > 2 {
		errs = append(errs, field.Invalid(path.Child("locality"), e.GetLocality(), "must be region[/zone[/subzone]]"))
	}
	return errs
}
