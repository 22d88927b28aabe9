package translate

import (
	"cmp"
	"net/netip"
	"regexp"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	apiworkload "github.com/tulle-mesh/tulle/api/workload"
	"github.com/tulle-mesh/tulle/istiod-lite/source"
)

func serviceName(namespace, hostname string) string { return namespace + "/" + hostname }

func networkAlias(network string, address []byte) string {
	a, _ := netip.AddrFromSlice(address)
	return network + "/" + a.String()
}

func podUID(cluster string, name source.Name) string {
	return cluster + "//Pod/" + name.Namespace + "/" + name.Name
}

func workloadEntryUID(cluster string, name source.Name) string {
	return cluster + "/networking.istio.io/WorkloadEntry/" + name.Namespace + "/" + name.Name
}

func serviceEntryUID(cluster string, name source.Name, endpoint string) string {
	return cluster + "/networking.istio.io/ServiceEntry/" + name.Namespace + "/" + name.Name + "/" + endpoint
}

func endpointSliceUID(cluster string, name source.Name, endpoint string) string {
	return cluster + "/discovery.k8s.io/EndpointSlice/" + name.Namespace + "/" + name.Name + "/" + endpoint
}

func compareNames(a, b source.Name) int {
	return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
}

// canonical returns the names under which a workload's traffic is counted.
func canonical(labels map[string]string, workloadName string) (name, revision string) {
	return firstLabel(labels, workloadName, source.LabelCanonicalName, "app.kubernetes.io/name", "app"),
		firstLabel(labels, "latest", source.LabelCanonicalRevision, "app.kubernetes.io/version", "version")
}

func firstLabel(labels map[string]string, otherwise string, keys ...string) string {
	for _, key := range keys {
		if v := labels[key]; v != "" {
			return v
		}
	}
	return otherwise
}

// cronJobName matches the names that a CronJob gives its Jobs: its own and the
// minutes since 1970.
var cronJobName = regexp.MustCompile(`^(.+)-\d{8,10}$`)

// workloadOf finds what a pod was made by, from its owner references alone:
// Deployments name their ReplicaSets, and ReplicaSets their pods, by a hash
// that the pod carries as a label.
func workloadOf(pod *corev1.Pod) (string, apiworkload.WorkloadType) {
	name, kind := pod.Name, apiworkload.WorkloadType_POD
	if owner := metav1.GetControllerOf(pod); owner != nil {
		switch owner.Kind {
		case "ReplicaSet":
			if hash := pod.Labels["pod-template-hash"]; hash != "" && strings.HasSuffix(owner.Name, "-"+hash) {
				name, kind = strings.TrimSuffix(owner.Name, "-"+hash), apiworkload.WorkloadType_DEPLOYMENT
			}
		case "Deployment":
			name, kind = owner.Name, apiworkload.WorkloadType_DEPLOYMENT
		case "Job":
			name, kind = owner.Name, apiworkload.WorkloadType_JOB
			if m := cronJobName.FindStringSubmatch(owner.Name); m != nil {
				name, kind = m[1], apiworkload.WorkloadType_CRONJOB
			}
		case "CronJob":
			name, kind = owner.Name, apiworkload.WorkloadType_CRONJOB
		}
	}
	if own := pod.Labels[source.LabelWorkloadName]; own != "" {
		name = own
	}
	return name, kind
}

// locality reads the places that labels name, each from the first set that has it.
func locality(labels ...map[string]string) *apiworkload.Locality {
	var l apiworkload.Locality
	for _, set := range labels {
		if l.Region == "" {
			l.Region = set[source.LabelRegion]
		}
		if l.Zone == "" {
			l.Zone = set[source.LabelZone]
		}
		if l.Subzone == "" {
			l.Subzone = set[source.LabelSubzone]
		}
	}
	if l.Region == "" && l.Zone == "" && l.Subzone == "" {
		return nil
	}
	return &l
}

// entryLocality reads region[/zone[/subzone]].
func entryLocality(s string) *apiworkload.Locality {
	if s == "" {
		return nil
	}
	parts := strings.SplitN(s, "/", 3)
	l := &apiworkload.Locality{Region: parts[0]}
	if len(parts) > 1 {
		l.Zone = parts[1]
	}
	if len(parts) > 2 {
		l.Subzone = parts[2]
	}
	return l
}
