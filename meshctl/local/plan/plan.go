package plan

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/tulle-mesh/tulle/meshctl/local/manifest"
)

// PodKey names a pod.
type PodKey struct{ Namespace, Name string }

// String is "namespace/name".
func (k PodKey) String() string { return k.Namespace + "/" + k.Name }

// Pod is one planned pod.
type Pod struct {
	PodKey
	UID            string
	Node           string
	IPv4, IPv6     netip.Addr
	ServiceAccount string
	// Dir is the working directory of containers that name none.
	Dir string
	// SpecHash changes when the pod must be made anew: labels and annotations
	// may change in place, the rest may not.
	SpecHash string
	// Enrolled tells whether the labels of pod and namespace put it in the mesh.
	Enrolled bool
	// Strict tells that a PeerAuthentication wants no plaintext at all.
	Strict bool
	// Object is the pod without status. Nobody may change it.
	Object *corev1.Pod
	// offset is its place in the node's ranges.
	offset int
}

// Service is one planned service.
type Service struct {
	Namespace, Name string
	// IPv4 and IPv6 are its virtual addresses; invalid when it has none of that
	// family, both when it is headless.
	IPv4, IPv6 netip.Addr
	// Object is the service with its addresses filled in. Nobody may change it.
	Object *corev1.Service
	// offset is its place in the service ranges, -1 when its addresses are the
	// user's own.
	offset int
}

// Plan is a decided mesh. It is immutable.
type Plan struct {
	Nodes []Node
	// Pods is sorted by namespace and name, Services alike.
	Pods     []*Pod
	Services []*Service
	// Others are the objects that go to the control plane as they are.
	Others []*manifest.Object

	podNext     map[string]int // per node, where its pool goes on
	serviceNext int
}

// Pod returns the pod of that name, or nil.
func (p *Plan) Pod(key PodKey) *Pod {
	if p == nil {
		return nil
	}
	for _, pod := range p.Pods {
		if pod.PodKey == key {
			return pod
		}
	}
	return nil
}

// Make plans set on nodes. prev is the plan that is in force, nil for none: what
// it holds keeps node, addresses and UID for as long as its spec stays. newUID
// makes a fresh UID for each new pod.
func Make(set *manifest.Set, nodes []Node, prev *Plan, newUID func() string) (*Plan, error) {
	next := &Plan{Nodes: nodes, podNext: map[string]int{}}
	if prev != nil {
		next.podNext = maps.Clone(prev.podNext)
		next.serviceNext = prev.serviceNext
	}
	pods, errs := expand(set)
	errs = append(errs, next.placePods(set, pods, prev, newUID)...)
	errs = append(errs, next.placeServices(set, prev)...)
	for _, o := range set.Objects() {
		switch o.Kind {
		case "Pod", "Deployment", "Service":
		default:
			next.Others = append(next.Others, o)
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return next, nil
}

// wanted is a pod that shall exist, before it has a place.
type wanted struct {
	from *manifest.Object
	pod  *corev1.Pod
	hash string
}

// expand lists the pods of set, those of Deployments included.
func expand(set *manifest.Set) ([]wanted, []error) {
	var (
		list []wanted
		errs []error
		seen = map[PodKey]*manifest.Object{}
	)
	add := func(from *manifest.Object, pod *corev1.Pod) {
		key := PodKey{pod.Namespace, pod.Name}
		if other := seen[key]; other != nil {
			errs = append(errs, fmt.Errorf("%v and %v both make a pod %v", other.Key, from.Key, key))
			return
		}
		seen[key] = from
		list = append(list, wanted{from: from, pod: pod, hash: specHash(&pod.Spec, from.Place.Dir)})
	}
	for _, o := range set.Objects() {
		switch v := o.Value.(type) {
		case *corev1.Pod:
			pod := v.DeepCopy()
			pod.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}
			add(o, pod)
		case *appsv1.Deployment:
			replicas := 1
			if v.Spec.Replicas != nil {
				replicas = int(*v.Spec.Replicas)
			}
			if replicas > maxReplicas {
				errs = append(errs, fmt.Errorf("%v: spec.replicas: %d; the local mesh runs at most %d of one Deployment", o.Key, replicas, maxReplicas))
				continue
			}
			for i := range replicas {
				add(o, replica(v, o.Place.Dir, i))
			}
		}
	}
	return list, errs
}

// replica makes the pod number i of a Deployment, named and owned as its
// ReplicaSet would.
func replica(d *appsv1.Deployment, dir string, i int) *corev1.Pod {
	template := d.Spec.Template.DeepCopy()
	hash := specHash(&template.Spec, dir)[:8]
	pod := &corev1.Pod{ObjectMeta: template.ObjectMeta, Spec: template.Spec}
	pod.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}
	pod.Namespace = d.Namespace
	set := d.Name + "-" + hash
	pod.Name = fmt.Sprintf("%s-%d", set, i)
	if pod.Labels == nil {
		pod.Labels = map[string]string{}
	}
	pod.Labels[appsv1.DefaultDeploymentUniqueLabelKey] = hash
	yes := true
	pod.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: set, UID: ownerUID(d.Namespace + "/" + set), Controller: &yes}}
	return pod
}

// ownerUID is the UID of an owner that nobody stores: the same for the same name.
func ownerUID(name string) types.UID {
	sum := sha256.Sum256([]byte(name))
	return types.UID(fmt.Sprintf("%x-%x-%x-%x-%x", sum[:4], sum[4:6], sum[6:8], sum[8:10], sum[10:16]))
}

func specHash(spec *corev1.PodSpec, dir string) string {
	js, err := json.Marshal(spec)
	if err != nil {
		panic(err) // a decoded PodSpec always encodes
	}
	sum := sha256.Sum256(append(js, dir...))
	return hex.EncodeToString(sum[:])[:16]
}

func (p *Plan) placePods(set *manifest.Set, list []wanted, prev *Plan, newUID func() string) []error {
	var (
		errs  []error
		pools = map[string]*pool{}
		load  = map[string]int{}
		nodes = map[string]Node{}
		kept  = map[PodKey]*Pod{}
	)
	for _, n := range p.Nodes {
		pools[n.Name] = newPool(maxPodsPerNode, p.podNext[n.Name])
		nodes[n.Name] = n
	}
	// What stays is placed first, and addresses of what goes stay taken until
	// the next plan: their processes may still be ending.
	for _, w := range list {
		if old := prev.Pod(PodKey{w.pod.Namespace, w.pod.Name}); old != nil && old.SpecHash == w.hash {
			kept[old.PodKey] = old
			load[old.Node]++
		}
	}
	if prev != nil {
		for _, old := range prev.Pods {
			if pl := pools[old.Node]; pl != nil {
				pl.used[old.offset] = true
			}
		}
	}
	for _, w := range list {
		key := PodKey{w.pod.Namespace, w.pod.Name}
		pod := &Pod{PodKey: key, ServiceAccount: w.pod.Spec.ServiceAccountName, Dir: w.from.Place.Dir, SpecHash: w.hash, Object: w.pod}
		if pod.ServiceAccount == "" {
			pod.ServiceAccount = "default"
		}
		if old := kept[key]; old != nil {
			pod.UID, pod.Node, pod.IPv4, pod.IPv6, pod.offset = old.UID, old.Node, old.IPv4, old.IPv6, old.offset
		} else {
			node, err := p.choose(w.pod, load)
			if err != nil {
				errs = append(errs, fmt.Errorf("%v: %w", w.from.Key, err))
				continue
			}
			offset, ok := pools[node].take()
			if !ok {
				errs = append(errs, fmt.Errorf("%v: node %s has no free address: it holds at most %d pods; use more --nodes", w.from.Key, node, maxPodsPerNode))
				continue
			}
			load[node]++
			pod.UID, pod.Node, pod.offset = newUID(), node, offset
			pod.IPv4 = nth(nodes[node].Pods4.Addr(), offset+2)
			pod.IPv6 = nth(nodes[node].Pods6.Addr(), offset+2)
		}
		pod.Enrolled = enrolled(set, w.pod)
		pod.Strict = strict(set, w.pod)
		w.pod.UID = types.UID(pod.UID)
		w.pod.Spec.NodeName = pod.Node
		w.pod.Spec.ServiceAccountName = pod.ServiceAccount
		p.Pods = append(p.Pods, pod)
	}
	for name, pl := range pools {
		p.podNext[name] = pl.next
	}
	slices.SortFunc(p.Pods, func(a, b *Pod) int { return strings.Compare(a.String(), b.String()) })
	return errs
}

// choose returns the node that the pod asks for, or the one with the fewest.
func (p *Plan) choose(pod *corev1.Pod, load map[string]int) (string, error) {
	known := func(name, field string) (string, error) {
		for _, n := range p.Nodes {
			if n.Name == name {
				return name, nil
			}
		}
		return "", fmt.Errorf("%s: no node %q: the nodes are node-1 to node-%d (see --nodes)", field, name, len(p.Nodes))
	}
	if pod.Spec.NodeName != "" {
		return known(pod.Spec.NodeName, "spec.nodeName")
	}
	for label, value := range pod.Spec.NodeSelector {
		if label != corev1.LabelHostname {
			return "", fmt.Errorf("spec.nodeSelector: the nodes of the local mesh have only the label %s", corev1.LabelHostname)
		}
		return known(value, "spec.nodeSelector["+label+"]")
	}
	best := p.Nodes[0].Name
	for _, n := range p.Nodes[1:] {
		if load[n.Name] < load[best] {
			best = n.Name
		}
	}
	return best, nil
}
