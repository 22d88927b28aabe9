package translate

import (
	"slices"

	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/tulle-mesh/tulle/istiod-lite/source"
)

// Translate translates objects once.
func Translate(objects *source.Objects, options Options) *Mesh {
	return New(options).Translate(objects)
}

// Translator translates successive states of one mesh and spares what has not
// changed. It is not safe for concurrent use; what it returns is.
type Translator struct {
	options    Options
	prev       *source.Objects
	namespaces map[string]*namespace
	root       group // of the root namespace, whose policies reach everywhere
	slices     *sliceIndex
	pods       map[source.Name]*podMemo
	entries    map[source.Name]entryMemo
	endpoints  map[string]endpointMemo
	policies   map[source.Name]policyMemo
}

// podMemo is a translated pod and all that its translation read.
type podMemo struct {
	pod       *corev1.Pod
	namespace *namespace
	node      *corev1.Node
	refs      []*slice
	resource  *Resource // nil for a pod that is not on the network
}

type entryMemo struct {
	entry     *networkingv1.WorkloadEntry
	namespace *namespace
	resource  *Resource
}

type endpointMemo struct {
	slice     *slice
	namespace *namespace
	resource  *Resource
}

type policyMemo struct {
	policy   *securityv1.AuthorizationPolicy
	resource *Resource
	warnings []Warning
}

// New returns a Translator that has seen nothing.
func New(options Options) *Translator {
	return &Translator{options: options.withDefaults(), prev: &source.Objects{}, slices: newSliceIndex(nil, nil, nil)}
}

// Translate returns the mesh that objects describe. It does not keep time, so
// a caller with many changes at hand should translate only the last state.
func (t *Translator) Translate(objects *source.Objects) *Mesh {
	mesh := &Mesh{
		Addresses:      make(map[string]*Resource, len(objects.Pods)+len(objects.Services)),
		Authorizations: make(map[string]*Resource, len(objects.AuthorizationPolicies)),
	}
	t.slices = newSliceIndex(t.slices, objects.EndpointSlices, objects.Pods)
	t.translateNamespaces(objects)
	for _, ns := range t.namespaces {
		for _, svc := range ns.services {
			mesh.Addresses[svc.resource.Name] = svc.resource
		}
		for _, r := range ns.endpoints {
			mesh.Addresses[r.Name] = r
		}
		for _, r := range ns.converted {
			mesh.Authorizations[r.Name] = r
		}
		mesh.Warnings = append(mesh.Warnings, ns.warnings...)
	}
	t.translatePods(objects, mesh)
	t.translateSliceEndpoints(mesh)
	t.translateEntries(objects, mesh)
	t.translatePolicies(objects, mesh)
	if len(objects.PeerAuthentications) > 0 {
		strict := staticStrict(t.options)
		mesh.Authorizations[strict.Name] = strict
	}
	sortWarnings(mesh.Warnings)
	t.prev = objects
	return mesh
}

func (t *Translator) translatePods(objects *source.Objects, mesh *Mesh) {
	if t.pods == nil {
		t.pods = make(map[source.Name]*podMemo, len(objects.Pods))
	}
	for name, pod := range objects.Pods {
		ns, node, refs := t.namespace(name.Namespace), objects.Nodes[source.Name{Name: pod.Spec.NodeName}], t.slices.pods[name]
		memo := t.pods[name]
		if memo == nil {
			memo = &podMemo{}
			t.pods[name] = memo
		}
		if memo.pod != pod || memo.namespace != ns || memo.node != node || !slices.Equal(memo.refs, refs) {
			*memo = podMemo{pod: pod, namespace: ns, node: node, refs: refs}
			if w := podWorkload(t.options, memo); w != nil {
				memo.resource = workloadResource(w)
			}
		}
		if memo.resource != nil {
			mesh.Addresses[memo.resource.Name] = memo.resource
		}
	}
	if len(t.pods) > len(objects.Pods) {
		for name := range t.pods {
			if objects.Pods[name] == nil {
				delete(t.pods, name)
			}
		}
	}
}

// translateSliceEndpoints makes workloads of endpoints that are no known pod.
func (t *Translator) translateSliceEndpoints(mesh *Mesh) {
	memos := make(map[string]endpointMemo, len(t.slices.others))
	for _, e := range t.slices.others {
		memo := endpointMemo{slice: e.slice, namespace: t.namespace(e.slice.name.Namespace)}
		uid := endpointSliceUID(t.options.ClusterID, e.slice.name, e.endpoint.Addresses[0])
		if old, ok := t.endpoints[uid]; ok && old.slice == memo.slice && old.namespace == memo.namespace {
			memo.resource = old.resource
		} else {
			memo.resource = workloadResource(sliceWorkload(t.options, e, uid, memo.namespace))
		}
		mesh.Addresses[uid] = memo.resource
		memos[uid] = memo
	}
	t.endpoints = memos
}

func (t *Translator) translateEntries(objects *source.Objects, mesh *Mesh) {
	memos := make(map[source.Name]entryMemo, len(objects.WorkloadEntries))
	for name, entry := range objects.WorkloadEntries {
		memo := entryMemo{entry: entry, namespace: t.namespace(name.Namespace)}
		if old, ok := t.entries[name]; ok && old.entry == entry && old.namespace == memo.namespace {
			memo.resource = old.resource
		} else {
			memo.resource = workloadResource(entryWorkload(t.options, entry, memo.namespace))
		}
		mesh.Addresses[memo.resource.Name] = memo.resource
		memos[name] = memo
	}
	t.entries = memos
}

func (t *Translator) translatePolicies(objects *source.Objects, mesh *Mesh) {
	memos := make(map[source.Name]policyMemo, len(objects.AuthorizationPolicies))
	for name, policy := range objects.AuthorizationPolicies {
		memo, ok := t.policies[name]
		if !ok || memo.policy != policy {
			memo = policyMemo{policy: policy}
			if a, warnings := authorization(t.options, policy); a != nil {
				memo.resource, memo.warnings = policyResource(a), warnings
			} else {
				memo.warnings = warnings
			}
		}
		if memo.resource != nil {
			mesh.Authorizations[memo.resource.Name] = memo.resource
		}
		mesh.Warnings = append(mesh.Warnings, memo.warnings...)
		memos[name] = memo
	}
	t.policies = memos
}

// changedNamespaces adds the namespaces whose objects differ between two maps.
func changedNamespaces[V comparable](a, b map[source.Name]V, dirty map[string]bool) {
	for name, v := range b {
		if old, ok := a[name]; !ok || old != v {
			dirty[name.Namespace] = true
		}
	}
	for name := range a {
		if _, ok := b[name]; !ok {
			dirty[name.Namespace] = true
		}
	}
}
