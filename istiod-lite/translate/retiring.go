package translate

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"

	apiworkload "github.com/tulle-mesh/tulle/api/workload"
	"github.com/tulle-mesh/tulle/istiod-lite/source"
)

// A pod that is being deleted and whose probes still succeed is retiring. It gets
// no new connections while its services have a ready endpoint, and goes on with
// those that have none: the last pods of a service that is scaled down or moved
// answer until they end, as they do behind kube-proxy (Kubernetes, "Proxy
// terminating endpoints"). kube-proxy decides so for each node apart where a
// service's internalTrafficPolicy is Local; here the whole service counts.

func retiring(pod *corev1.Pod) bool {
	return pod.DeletionTimestamp != nil && !source.Ended(pod) && probesSucceed(pod)
}

// readyEndpoints counts, for each service, the workloads that are ready.
type readyEndpoints struct {
	services map[string]int
	counted  map[string][]string // by workload, the services that count it
}

func newReadyEndpoints() readyEndpoints {
	return readyEndpoints{services: map[string]int{}, counted: map[string][]string{}}
}

// set has the workload count for these services and no others.
func (e *readyEndpoints) set(uid string, services []string) {
	for _, name := range e.counted[uid] {
		if e.services[name]--; e.services[name] == 0 {
			delete(e.services, name)
		}
	}
	if len(services) == 0 {
		delete(e.counted, uid)
		return
	}
	for _, name := range services {
		e.services[name]++
	}
	e.counted[uid] = services
}

// setAddress puts a workload or a service in, or takes out what is there when r
// is nil.
func (t *Translator) setAddress(name string, r *Resource) {
	var services []string
	if r != nil {
		if a, ok := r.Body.(*apiworkload.Address); ok && a.GetWorkload() != nil && a.GetWorkload().GetStatus() == apiworkload.WorkloadStatus_HEALTHY {
			services = r.Services
		}
	}
	t.ready.set(name, services)
	t.publish(name, r)
}

// publish is setAddress but for what is ready.
func (t *Translator) publish(name string, r *Resource) {
	if len(t.destinations.members) > 0 {
		var was, is []string
		if old := t.out.addresses.newest()[name]; old != nil {
			was = old.Services
		}
		if r != nil {
			is = r.Services
		}
		t.destinations.member(name, was, is)
	}
	t.out.addresses.set(name, r)
}

// translateRetiring comes when all that is ready is known. It looks at all
// retiring pods, since each depends on every other endpoint of its services;
// they are few, and stay so for their grace period only.
func (t *Translator) translateRetiring(u *update) {
	for name, memo := range t.pods.retiring {
		last := t.lastResortOf(memo)
		if !u.dirtyPods[name] && slices.Equal(last, memo.lastResortOf) {
			continue
		}
		memo.lastResortOf = last
		uid := podUID(t.options.ClusterID, name)
		var r *Resource
		w, own := podWorkload(t.options, memo, t.slices.pods[name])
		t.pass(u, uid, own, w) // who addresses the pod itself gets there to its end
		if w != nil {
			if len(last) > 0 {
				memo.namespace.serveOnly(w, last)
			}
			r = workloadResource(w)
		}
		t.publish(uid, r)
	}
}

// lastResortOf returns the names of the Services that have no ready endpoint and
// whose selector takes the pod.
func (t *Translator) lastResortOf(memo *podMemo) []string {
	var names []string
	for _, s := range memo.namespace.selectors.find(memo.pod.Labels) {
		if memo.namespace.byName[s.proto.GetName()] == s && t.ready.services[s.resource.Name] == 0 {
			names = append(names, s.resource.Name)
		}
	}
	return names
}

// serveOnly makes w a ready endpoint of the named services. It stays one of those
// that take unready endpoints too, and leaves the others.
func (ns *namespace) serveOnly(w *apiworkload.Workload, names []string) {
	w.Status = apiworkload.WorkloadStatus_HEALTHY
	keep := map[string]bool{}
	for _, name := range names {
		keep[name] = true
	}
	for _, s := range ns.services {
		if s.proto.GetLoadBalancing().GetHealthPolicy() == apiworkload.LoadBalancing_ALLOW_ALL {
			keep[s.resource.Name] = true
		}
	}
	maps.DeleteFunc(w.Services, func(name string, _ *apiworkload.PortList) bool { return !keep[name] })
}
