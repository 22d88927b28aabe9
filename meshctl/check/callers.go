package check

import (
	"fmt"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

var apiServices = schema.GroupVersionResource{Group: "apiregistration.k8s.io", Version: "v1", Resource: "apiservices"}

// called is a service that the API server itself connects to.
type called struct {
	what, namespace, service string
}

// callers finds services that the API server calls, which is outside the mesh, and
// whose pods take connections of members only.
func (r *runner) callers(w world) {
	const name = "what the API server calls takes plaintext"
	list, err := r.called()
	if err != nil {
		r.broken(name, err)
		return
	}
	strict, err := r.strict(w)
	if err != nil {
		r.broken(name, err)
		return
	}
	var wrong []string
	for _, c := range list {
		s := strict[c.namespace]
		if s == nil || len(s.permissive) > 0 {
			// Someone thought of ports there; which of them the service's is would need
			// its endpoints.
			continue
		}
		svc, err := r.cluster.Client.Kubernetes.CoreV1().Services(c.namespace).Get(r.ctx, c.service, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			continue // broken already, for another reason
		}
		if err != nil {
			r.broken(name, r.cluster.Client.Explain(err))
			return
		}
		if len(svc.Spec.Selector) == 0 {
			continue
		}
		selector := labels.SelectorFromSet(svc.Spec.Selector)
		for i := range w.pods {
			p := &w.pods[i]
			if p.Namespace == c.namespace && alive(p) && member(p) && selector.Matches(labels.Set(p.Labels)) {
				wrong = append(wrong, fmt.Sprintf("%s calls %s/%s, whose pods are STRICT by %s", c.what, c.namespace, c.service, s.by))
				break
			}
		}
	}
	r.unless(wrong, Failed, name, "the API server is not in the mesh: give the port PERMISSIVE in a PeerAuthentication with portLevelMtls, or label those pods istio.io/dataplane-mode=none")
}

// called lists the services of webhooks and aggregated APIs.
func (r *runner) called() ([]called, error) {
	var out []called
	add := func(webhook string, s *admissionregistrationv1.ServiceReference) {
		if s != nil {
			out = append(out, called{"webhook " + webhook, s.Namespace, s.Name})
		}
	}
	k := r.cluster.Client.Kubernetes.AdmissionregistrationV1()
	validating, err := k.ValidatingWebhookConfigurations().List(r.ctx, metav1.ListOptions{})
	if err != nil {
		return nil, r.cluster.Client.Explain(err)
	}
	for _, c := range validating.Items {
		for _, h := range c.Webhooks {
			add(h.Name, h.ClientConfig.Service)
		}
	}
	mutating, err := k.MutatingWebhookConfigurations().List(r.ctx, metav1.ListOptions{})
	if err != nil {
		return nil, r.cluster.Client.Explain(err)
	}
	for _, c := range mutating.Items {
		for _, h := range c.Webhooks {
			add(h.Name, h.ClientConfig.Service)
		}
	}
	apis, err := r.cluster.Client.Dynamic.Resource(apiServices).List(r.ctx, metav1.ListOptions{})
	if err != nil {
		return nil, r.cluster.Client.Explain(err)
	}
	for _, a := range apis.Items {
		ns, _, _ := unstructured.NestedString(a.Object, "spec", "service", "namespace")
		svc, _, _ := unstructured.NestedString(a.Object, "spec", "service", "name")
		if svc != "" {
			out = append(out, called{"API " + a.GetName(), ns, svc})
		}
	}
	return out, nil
}

// strictness is what makes a namespace STRICT.
type strictness struct {
	by string
	// permissive are ports that some policy of the namespace excepts.
	permissive []uint32
}

// strict lists the namespaces whose pods take connections of members only, as far
// as policies without a selector say so.
func (r *runner) strict(w world) (map[string]*strictness, error) {
	list, err := r.cluster.Client.Istio.SecurityV1().PeerAuthentications("").List(r.ctx, metav1.ListOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, r.cluster.Client.Explain(err)
	}
	const strict, unset = "STRICT", "UNSET"
	whole := map[string]string{} // namespace → mode
	names := map[string]string{}
	exceptions := map[string][]uint32{}
	for _, p := range list.Items {
		for n, m := range p.Spec.PortLevelMtls {
			if m.GetMode().String() != strict && m.GetMode().String() != unset {
				exceptions[p.Namespace] = append(exceptions[p.Namespace], n)
			}
		}
		if len(p.Spec.GetSelector().GetMatchLabels()) > 0 {
			continue
		}
		if m := p.Spec.GetMtls().GetMode().String(); m != unset {
			whole[p.Namespace], names[p.Namespace] = m, "PeerAuthentication "+p.Namespace+"/"+p.Name
		}
	}
	out := map[string]*strictness{}
	for ns := range w.namespaces {
		mode, by := whole[ns], names[ns]
		if mode == "" {
			mode, by = whole[r.cluster.System], names[r.cluster.System]
		}
		if mode == strict {
			out[ns] = &strictness{by: by, permissive: exceptions[ns]}
		}
	}
	return out, nil
}
