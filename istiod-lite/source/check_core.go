package source

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func checkPod(pod *corev1.Pod) field.ErrorList {
	errs := checkModeLabel(pod.Labels, field.NewPath("metadata", "labels"))
	spec := field.NewPath("spec")
	errs = append(errs, checkServiceAccountName(pod.Spec.ServiceAccountName, spec.Child("serviceAccountName"))...)
	if d := pod.Spec.DeprecatedServiceAccount; d != "" && d != pod.Spec.ServiceAccountName {
		errs = append(errs, field.Invalid(spec.Child("serviceAccount"), d, "must equal serviceAccountName; leave it out"))
	}
	if n := pod.Spec.NodeName; n != "" {
		for _, msg := range validation.IsDNS1123Subdomain(n) {
			errs = append(errs, field.Invalid(spec.Child("nodeName"), n, msg))
		}
	}
	containers := func(list []corev1.Container, path *field.Path) {
		names := map[string]bool{}
		for i, c := range list {
			path := path.Index(i)
			switch {
			case c.Name == "":
				errs = append(errs, field.Required(path.Child("name"), ""))
			case names[c.Name]:
				errs = append(errs, field.Duplicate(path.Child("name"), c.Name))
			}
			names[c.Name] = true
			for j, p := range c.Ports {
				path := path.Child("ports").Index(j)
				errs = append(errs, checkPort(int64(p.ContainerPort), path.Child("containerPort"))...)
				errs = append(errs, checkProtocol(p.Protocol, path.Child("protocol"))...)
				if p.Name != "" {
					for _, msg := range validation.IsValidPortName(p.Name) {
						errs = append(errs, field.Invalid(path.Child("name"), p.Name, msg))
					}
				}
			}
		}
	}
	containers(pod.Spec.InitContainers, spec.Child("initContainers"))
	containers(pod.Spec.Containers, spec.Child("containers"))

	status := field.NewPath("status")
	if pod.Status.PodIP != "" {
		errs = append(errs, checkIP(pod.Status.PodIP, status.Child("podIP"))...)
	}
	for i, ip := range pod.Status.PodIPs {
		errs = append(errs, checkIP(ip.IP, status.Child("podIPs").Index(i).Child("ip"))...)
	}
	if len(pod.Status.PodIPs) > 0 && pod.Status.PodIP != "" && pod.Status.PodIPs[0].IP != pod.Status.PodIP {
		errs = append(errs, field.Invalid(status.Child("podIPs").Index(0).Child("ip"), pod.Status.PodIPs[0].IP, "must equal status.podIP"))
	}
	errs = append(errs, notSupported(status.Child("phase"), string(pod.Status.Phase),
		"", string(corev1.PodPending), string(corev1.PodRunning), string(corev1.PodSucceeded), string(corev1.PodFailed), string(corev1.PodUnknown))...)
	for i, c := range pod.Status.Conditions {
		errs = append(errs, notSupported(status.Child("conditions").Index(i).Child("status"), string(c.Status),
			string(corev1.ConditionTrue), string(corev1.ConditionFalse), string(corev1.ConditionUnknown))...)
	}
	return errs
}

func checkProtocol(p corev1.Protocol, path *field.Path) field.ErrorList {
	return notSupported(path, string(p), "", string(corev1.ProtocolTCP), string(corev1.ProtocolUDP), string(corev1.ProtocolSCTP))
}

func checkService(svc *corev1.Service) field.ErrorList {
	var errs field.ErrorList
	spec := field.NewPath("spec")
	errs = append(errs, checkModeLabel(svc.Labels, field.NewPath("metadata", "labels"))...)
	errs = append(errs, notSupported(spec.Child("type"), string(svc.Spec.Type), "", string(corev1.ServiceTypeClusterIP),
		string(corev1.ServiceTypeNodePort), string(corev1.ServiceTypeLoadBalancer), string(corev1.ServiceTypeExternalName))...)
	errs = append(errs, checkLabelMap(svc.Spec.Selector, spec.Child("selector"))...)
	if svc.Spec.Type == corev1.ServiceTypeExternalName {
		return append(errs, checkHostname(svc.Spec.ExternalName, spec.Child("externalName"))...)
	}

	if ip := svc.Spec.ClusterIP; ip != "" && ip != corev1.ClusterIPNone {
		errs = append(errs, checkIP(ip, spec.Child("clusterIP"))...)
	}
	for i, ip := range svc.Spec.ClusterIPs {
		path := spec.Child("clusterIPs").Index(i)
		if ip == corev1.ClusterIPNone {
			if len(svc.Spec.ClusterIPs) > 1 {
				errs = append(errs, field.Invalid(path, ip, "None stands alone"))
			}
			continue
		}
		errs = append(errs, checkIP(ip, path)...)
	}
	if len(svc.Spec.ClusterIPs) > 0 && svc.Spec.ClusterIP != "" && svc.Spec.ClusterIPs[0] != svc.Spec.ClusterIP {
		errs = append(errs, field.Invalid(spec.Child("clusterIPs").Index(0), svc.Spec.ClusterIPs[0], "must equal spec.clusterIP"))
	}
	for i, f := range svc.Spec.IPFamilies {
		errs = append(errs, notSupported(spec.Child("ipFamilies").Index(i), string(f), string(corev1.IPv4Protocol), string(corev1.IPv6Protocol))...)
	}
	errs = append(errs, checkServicePorts(svc, spec.Child("ports"))...)
	if itp := svc.Spec.InternalTrafficPolicy; itp != nil {
		errs = append(errs, notSupported(spec.Child("internalTrafficPolicy"), string(*itp),
			string(corev1.ServiceInternalTrafficPolicyCluster), string(corev1.ServiceInternalTrafficPolicyLocal))...)
	}
	if td := svc.Spec.TrafficDistribution; td != nil {
		errs = append(errs, notSupported(spec.Child("trafficDistribution"), *td, trafficDistributions...)...)
	}
	return append(errs, checkTrafficAnnotation(svc.Annotations)...)
}

var trafficDistributions = []string{"PreferClose", "PreferSameZone", "PreferSameNode"}

func checkTrafficAnnotation(annotations map[string]string) field.ErrorList {
	td, ok := annotations[AnnotationTrafficDistribution]
	if !ok {
		return nil
	}
	return notSupported(field.NewPath("metadata", "annotations").Key(AnnotationTrafficDistribution), td, append([]string{"Any"}, trafficDistributions...)...)
}

func checkServicePorts(svc *corev1.Service, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if len(svc.Spec.Ports) == 0 && svc.Spec.ClusterIP != corev1.ClusterIPNone && !slices.Equal(svc.Spec.ClusterIPs, []string{corev1.ClusterIPNone}) {
		errs = append(errs, field.Required(path, "a service that is not headless needs a port"))
	}
	if len(svc.Spec.Ports) > maxPorts {
		errs = append(errs, field.TooMany(path, len(svc.Spec.Ports), maxPorts))
	}
	names, numbers := map[string]bool{}, map[string]bool{}
	for i, p := range svc.Spec.Ports {
		path := path.Index(i)
		errs = append(errs, checkPort(int64(p.Port), path.Child("port"))...)
		errs = append(errs, checkProtocol(p.Protocol, path.Child("protocol"))...)
		number := fmt.Sprintf("%d/%s", p.Port, strings.TrimSuffix(string(p.Protocol), "TCP"))
		if numbers[number] {
			errs = append(errs, field.Duplicate(path.Child("port"), p.Port))
		}
		numbers[number] = true
		switch {
		case p.Name == "" && len(svc.Spec.Ports) > 1:
			errs = append(errs, field.Required(path.Child("name"), "ports of a service with several need names"))
		case p.Name != "" && names[p.Name]:
			errs = append(errs, field.Duplicate(path.Child("name"), p.Name))
		case p.Name != "":
			for _, msg := range validation.IsDNS1123Label(p.Name) {
				errs = append(errs, field.Invalid(path.Child("name"), p.Name, msg))
			}
		}
		names[p.Name] = true
		switch {
		case p.TargetPort.Type == intstr.String && p.TargetPort.StrVal != "":
			for _, msg := range validation.IsValidPortName(p.TargetPort.StrVal) {
				errs = append(errs, field.Invalid(path.Child("targetPort"), p.TargetPort.StrVal, msg))
			}
		case p.TargetPort.Type == intstr.Int && p.TargetPort.IntVal != 0:
			errs = append(errs, checkPort(int64(p.TargetPort.IntVal), path.Child("targetPort"))...)
		}
	}
	return errs
}

func checkEndpointSlice(slice *discoveryv1.EndpointSlice) field.ErrorList {
	var errs field.ErrorList
	if name := slice.Labels[LabelServiceName]; name != "" {
		for _, msg := range validation.IsDNS1035Label(name) {
			errs = append(errs, field.Invalid(field.NewPath("metadata", "labels").Key(LabelServiceName), name, msg))
		}
	}
	errs = append(errs, notSupported(field.NewPath("addressType"), string(slice.AddressType), string(discoveryv1.AddressTypeIPv4),
		string(discoveryv1.AddressTypeIPv6), string(discoveryv1.AddressTypeFQDN))...)
	if n := len(slice.Endpoints); n > maxEndpoints {
		errs = append(errs, field.TooMany(field.NewPath("endpoints"), n, maxEndpoints))
	}
	for i, e := range slice.Endpoints {
		path := field.NewPath("endpoints").Index(i)
		if len(e.Addresses) == 0 {
			errs = append(errs, field.Required(path.Child("addresses"), "an endpoint needs an address"))
		}
		for j, a := range e.Addresses {
			path := path.Child("addresses").Index(j)
			if slice.AddressType == discoveryv1.AddressTypeFQDN {
				errs = append(errs, checkHostname(a, path)...)
				continue
			}
			ip := checkIP(a, path)
			if len(ip) == 0 && strings.Contains(a, ":") != (slice.AddressType == discoveryv1.AddressTypeIPv6) {
				ip = field.ErrorList{field.Invalid(path, a, "must be of the slice's addressType")}
			}
			errs = append(errs, ip...)
		}
	}
	names := map[string]bool{}
	for i, p := range slice.Ports {
		path := field.NewPath("ports").Index(i)
		name := ""
		if p.Name != nil {
			name = *p.Name
		}
		if names[name] {
			errs = append(errs, field.Duplicate(path.Child("name"), name))
		}
		names[name] = true
		if p.Port != nil {
			errs = append(errs, checkPort(int64(*p.Port), path.Child("port"))...)
		}
		if p.Protocol != nil {
			errs = append(errs, checkProtocol(*p.Protocol, path.Child("protocol"))...)
		}
	}
	return errs
}
