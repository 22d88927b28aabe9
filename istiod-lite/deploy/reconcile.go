package deploy

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/tulle-mesh/tulle/istiod-lite/source"
)

// fieldManager owns what is written: nobody else's fields are touched.
const fieldManager = "istiod-lite-deploy"

// foreignError tells of an object in the way that is somebody else's.
type foreignError struct{ object, whose string }

func (e *foreignError) Error() string {
	return fmt.Sprintf("%s is there and is %s: it is left as it is; rename the Gateway, set the annotation gateway.istio.io/name-override, or remove the object", e.object, e.whose)
}

// unreadError tells of parameters that may be there and could not be read just now.
type unreadError struct{ error }

func (e *unreadError) Unwrap() error { return e.error }

// errEarlier tells of an object of an earlier Gateway of the same name, which the
// cluster's garbage collector is about to take away.
var errEarlier = errors.New("of an earlier Gateway of this name, which is being removed")

// reconcile has the waypoint of one Gateway be as it should.
func (r *run) reconcile(ctx context.Context, name source.Name) error {
	gw, objects := r.gateway(name)
	if gw == nil {
		r.forget(name)
		return nil
	}
	if ns := objects.Namespaces[source.Name{Name: name.Namespace}]; ns == nil || ns.DeletionTimestamp != nil {
		return nil // nothing can be made in it
	}
	list, err := r.parameters(ctx, objects, gw)
	if err != nil {
		var unread *unreadError
		if errors.As(err, &unread) {
			return r.failed(gw, err)
		}
		r.tell(name, Outcome{Managed: true, Refused: true, Reason: string(gatewayv1.GatewayReasonInvalidParameters), Message: err.Error() + ".", uid: gw.UID})
		return nil
	}
	objectsWanted, err := build(r.cfg.Settings, r.cfg.Options, gw, list)
	if err != nil {
		r.tell(name, Outcome{Managed: true, Refused: true, Reason: string(gatewayv1.GatewayReasonInvalidParameters), Message: err.Error() + ".", uid: gw.UID})
		return nil
	}
	if r.unchanged(name, objectsWanted) {
		return nil
	}
	if there, err := r.there(ctx, gw); err != nil {
		return r.failed(gw, err)
	} else if !there {
		return nil // the watch tells of it soon
	}
	if newer, err := r.newer(ctx, gw, objectsWanted); err != nil {
		return r.failed(gw, err)
	} else if newer {
		return nil
	}
	if err := r.applyAll(ctx, gw, objectsWanted); err != nil {
		if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
			return nil
		}
		return r.failed(gw, err)
	}
	r.tell(name, Outcome{Managed: true, Done: true, uid: gw.UID})
	return nil
}

// there asks whether the Gateway is still there. When it is removed, the garbage
// collector takes what was made for it, perhaps before the watch tells of the Gateway's
// end: what then is missing must not be made once more.
func (r *run) there(ctx context.Context, gw *gatewayv1.Gateway) (bool, error) {
	live, err := r.cfg.Dynamic.Resource(gatewayv1.SchemeGroupVersion.WithResource("gateways")).Namespace(gw.Namespace).Get(ctx, gw.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read Gateway %s/%s: %w", gw.Namespace, gw.Name, err)
	}
	return live.GetUID() == gw.UID && live.GetDeletionTimestamp() == nil, nil
}

// failed tells why a Gateway has no waypoint yet, and returns err, with which it is
// tried again.
func (r *run) failed(gw *gatewayv1.Gateway, err error) error {
	reason := string(gatewayv1.GatewayReasonNoResources)
	var foreign *foreignError
	if errors.As(err, &foreign) {
		reason = string(gatewayv1.GatewayReasonInvalid)
	}
	r.tell(source.Name{Namespace: gw.Namespace, Name: gw.Name}, Outcome{Managed: true, Reason: reason, Message: "The waypoint cannot be deployed: " + err.Error() + ".", uid: gw.UID})
	return err
}

// forget drops what is known of a Gateway that is no more or no waypoint of ours.
func (r *run) forget(name source.Name) {
	r.mu.Lock()
	delete(r.applied, name)
	delete(r.parametrised, name)
	r.mu.Unlock()
	r.tell(name, Outcome{})
}

// mark is what changes with an object's specification and not with its status.
func mark(o metav1.Object) string {
	text := string(o.GetUID()) + "/" + strconv.FormatInt(o.GetGeneration(), 10)
	if o.GetDeletionTimestamp() != nil {
		text += "/deleting"
	}
	labels, _ := json.Marshal(o.GetLabels()) // no map of texts can fail
	return text + string(labels)
}

// unchanged reports whether these objects were applied already and nobody has
// changed them since.
func (r *run) unchanged(name source.Name, list []wanted) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.applied[name] != "" && r.applied[name] == print(list, r.present(name))
}

// present returns the marks of what was made for a Gateway, as the watch knows it.
func (r *run) present(name source.Name) []string {
	var marks []string
	for _, m := range allMade {
		list, err := r.seen[m.kind].ByIndex(byGateway, name.String())
		if err != nil {
			continue // the index is there, or Run would have ended
		}
		for _, obj := range list {
			if o, ok := obj.(metav1.Object); ok {
				marks = append(marks, m.kind+"/"+o.GetName()+"="+mark(o))
			}
		}
	}
	slices.Sort(marks)
	return marks
}

func print(list []wanted, marks []string) string {
	h := sha256.New()
	for _, w := range list {
		text, err := json.Marshal(w.object)
		if err != nil {
			return "" // nothing that JSON cannot say is built
		}
		h.Write(text)
	}
	h.Write([]byte(strings.Join(marks, "\n")))
	return hex.EncodeToString(h.Sum(nil))
}

// newer reports whether a newer control plane than this one made the Deployment.
func (r *run) newer(ctx context.Context, gw *gatewayv1.Gateway, list []wanted) (bool, error) {
	for _, w := range list {
		if w.made != deployments {
			continue
		}
		live, err := r.cfg.Dynamic.Resource(w.resource).Namespace(gw.Namespace).Get(ctx, w.object.GetName(), metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		version, err := strconv.Atoi(live.GetAnnotations()[annotationVersion])
		if err == nil && version > templateVersion && mine(gw, live) {
			r.cfg.Logger.Warn("a newer control plane made this waypoint; it is left alone", zap.String("gateway", gw.Namespace+"/"+gw.Name), zap.Int("version", version))
			return true, nil
		}
	}
	return false, nil
}

// mine reports whether an object belongs to the Gateway.
func mine(gw *gatewayv1.Gateway, o metav1.Object) bool {
	return slices.ContainsFunc(o.GetOwnerReferences(), func(ref metav1.OwnerReference) bool { return ref.UID == gw.UID })
}

// applyAll applies the objects and takes away what is not wanted any more.
func (r *run) applyAll(ctx context.Context, gw *gatewayv1.Gateway, list []wanted) error {
	// What the API server answers is what it should be from now on; what the watch
	// tells may be behind, or somebody's change already.
	var marks []string
	for _, w := range list {
		after, err := r.apply(ctx, gw, w)
		if err != nil {
			return err
		}
		if after != nil {
			marks = append(marks, w.kind+"/"+after.GetName()+"="+mark(after))
		}
	}
	slices.Sort(marks)
	name := source.Name{Namespace: gw.Namespace, Name: gw.Name}
	for _, m := range allMade {
		there, err := r.seen[m.kind].ByIndex(byGateway, name.String())
		if err != nil {
			return err
		}
		for _, obj := range there {
			o, ok := obj.(metav1.Object)
			if !ok || !mine(gw, o) || slices.ContainsFunc(list, func(w wanted) bool { return w.made == m && w.object.GetName() == o.GetName() }) {
				continue
			}
			uid := o.GetUID()
			err := r.cfg.Dynamic.Resource(m.resource).Namespace(gw.Namespace).Delete(ctx, o.GetName(), metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}})
			if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
				return fmt.Errorf("remove %s %s/%s: %w", m.kind, gw.Namespace, o.GetName(), err)
			}
			r.cfg.Logger.Info("removed, not wanted any more", zap.String("gateway", name.String()), zap.String("object", m.kind+" "+gw.Namespace+"/"+o.GetName()))
		}
	}
	r.mu.Lock()
	r.applied[name] = print(list, marks)
	r.mu.Unlock()
	return nil
}

// apply states what an object is to be, unless it is somebody else's, and returns what
// it is then; nil for what is left to somebody else.
func (r *run) apply(ctx context.Context, gw *gatewayv1.Gateway, w wanted) (*unstructured.Unstructured, error) {
	what := w.kind + " " + gw.Namespace + "/" + w.object.GetName()
	client := r.cfg.Dynamic.Resource(w.resource).Namespace(gw.Namespace)
	live, err := client.Get(ctx, w.object.GetName(), metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		live = nil
	case err != nil:
		return nil, fmt.Errorf("read %s: %w", what, err)
	case !mine(gw, live):
		if w.made == accounts && gw.Annotations[source.AnnotationServiceAccount] != "" {
			return nil, nil // the Gateway's author asks for this very account
		}
		if earlier(gw, live) {
			return nil, fmt.Errorf("%s is %w", what, errEarlier)
		}
		return nil, &foreignError{object: what, whose: whose(live)}
	}
	object := w.object.DeepCopy()
	if live != nil {
		// Not another one of that name, which somebody may just have made.
		object.SetUID(live.GetUID())
	}
	after, err := client.Apply(ctx, object.GetName(), object, metav1.ApplyOptions{FieldManager: fieldManager, Force: true})
	if err != nil {
		r.writes.WithLabelValues(w.kind, "error").Inc()
		return nil, fmt.Errorf("apply %s: %w", what, err)
	}
	if live == nil || live.GetResourceVersion() != after.GetResourceVersion() {
		r.writes.WithLabelValues(w.kind, "ok").Inc()
		r.cfg.Logger.Info("waypoint deployed", zap.String("gateway", gw.Namespace+"/"+gw.Name), zap.String("object", what), zap.Bool("new", live == nil))
	}
	return after, nil
}

// earlier reports whether an object belonged to a Gateway of that name that is no more.
func earlier(gw *gatewayv1.Gateway, o metav1.Object) bool {
	return slices.ContainsFunc(o.GetOwnerReferences(), func(ref metav1.OwnerReference) bool {
		return ref.Kind == "Gateway" && ref.Name == gw.Name && strings.HasPrefix(ref.APIVersion, gatewayv1.GroupName+"/") && ref.UID != gw.UID
	})
}

func whose(o *unstructured.Unstructured) string {
	if refs := o.GetOwnerReferences(); len(refs) > 0 {
		return refs[0].Kind + " " + refs[0].Name + "'s"
	}
	return "not this Gateway's"
}

// parameters reads the overlays of a Gateway, those of the mesh and of its class
// first.
func (r *run) parameters(ctx context.Context, objects *source.Objects, gw *gatewayv1.Gateway) ([]parameters, error) {
	var list []parameters
	follow := false
	defer func() { // whether they are there by now or not
		r.mu.Lock()
		defer r.mu.Unlock()
		name := source.Name{Namespace: gw.Namespace, Name: gw.Name}
		if follow {
			r.parametrised[name] = true
		} else {
			delete(r.parametrised, name)
		}
	}()
	add := func(namespace, name string) error {
		from := "ConfigMap " + namespace + "/" + name
		o, err := r.cfg.Dynamic.Resource(schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}).Namespace(namespace).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			err = fmt.Errorf("%s: %w", from, err)
			if !apierrors.IsNotFound(err) {
				err = &unreadError{err}
			}
			return err
		}
		data, _, err := unstructured.NestedStringMap(o.Object, "data")
		if err != nil {
			return fmt.Errorf("%s: %w", from, err)
		}
		p, err := readParameters(from, data)
		if err != nil {
			return err
		}
		list = append(list, p)
		return nil
	}
	if name := r.cfg.Settings.Defaults; name != "" {
		follow = true
		if err := add(r.cfg.Settings.RootNamespace, name); err != nil && !apierrors.IsNotFound(err) {
			return nil, err
		}
	}
	if class := objects.GatewayClasses[source.Name{Name: string(gw.Spec.GatewayClassName)}]; class != nil && class.Spec.ParametersRef != nil {
		follow = true
		ref := class.Spec.ParametersRef
		if ref.Kind != "ConfigMap" || ref.Group != "" || ref.Namespace == nil {
			return nil, fmt.Errorf("GatewayClass %s: spec.parametersRef: must be a ConfigMap with its namespace", class.Name)
		}
		if err := add(string(*ref.Namespace), ref.Name); err != nil {
			return nil, err
		}
	}
	if infra := gw.Spec.Infrastructure; infra != nil && infra.ParametersRef != nil {
		follow = true
		ref := infra.ParametersRef
		if ref.Kind != "ConfigMap" || ref.Group != "" {
			return nil, fmt.Errorf("spec.infrastructure.parametersRef: must be a ConfigMap")
		}
		if err := add(gw.Namespace, ref.Name); err != nil {
			return nil, err
		}
	}
	return list, nil
}
