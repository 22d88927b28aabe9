package mesh

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/tulle-mesh/tulle/meshctl/local"
	"github.com/tulle-mesh/tulle/meshctl/local/control"
)

// OnThisMachine is a local mesh that runs.
func OnThisMachine(m *local.Mesh) Mesh { return &localMesh{m} }

type localMesh struct{ mesh *local.Mesh }

func (*localMesh) Local() bool       { return true }
func (*localMesh) Namespace() string { return "" }
func (l *localMesh) String() string  { return "the local mesh in " + l.mesh.StateDir() }

func (l *localMesh) Components(ctx context.Context, kind string) ([]*Component, error) {
	st, err := l.mesh.Status(ctx)
	if err != nil {
		return nil, err
	}
	if kind == Waypoint {
		return l.waypoints(st), nil
	}
	var out []*Component
	add := func(node string, c control.Component) {
		x := &Component{Kind: kind, Name: c.Name, Node: node, Version: st.Version, Ready: c.State == "ready", Reason: c.Reason, Restarts: c.Restarts}
		if !x.Ready && x.Reason == "" {
			x.Reason = c.State
		}
		place := node
		if place == "" {
			place = "control-plane"
		}
		x.ask = func(ctx context.Context, method, path string) ([]byte, error) {
			body, err := l.mesh.Admin(ctx, method, place, kind, path)
			var refusal *local.RefusalError
			if errors.As(err, &refusal) {
				return nil, &RefusalError{Status: refusal.Status, Text: refusal.Text}
			}
			return body, err
		}
		out = append(out, x)
	}
	if kind == Istiod {
		if st.ControlPlane != nil {
			add("", *st.ControlPlane)
		}
		return out, nil
	}
	for _, n := range st.Nodes {
		for _, c := range n.Components {
			if c.Name == kind || kind == Agent && c.Name == "agent" {
				add(n.Name, c)
			}
		}
	}
	return out, nil
}

func (l *localMesh) Pods(ctx context.Context, namespace string) ([]Pod, error) {
	st, err := l.mesh.Status(ctx)
	if err != nil {
		return nil, err
	}
	var out []Pod
	for _, p := range st.Pods {
		if namespace == "" || p.Namespace == namespace {
			out = append(out, localPod(p, st.Mesh))
		}
	}
	slices.SortFunc(out, func(a, b Pod) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	return out, nil
}

func localPod(p control.Pod, meshed bool) Pod {
	out := Pod{Namespace: p.Namespace, Name: p.Name, Node: p.Node, IPs: p.IPs, Phase: p.Phase, Ready: p.Ready, Reason: p.Reason, Member: p.Mesh == "in"}
	_, out.Account, _ = strings.Cut(p.Identity, "/sa/")
	switch {
	case out.Member:
	case !meshed:
		out.Outside = "this local mesh was started with --no-mesh"
	case p.Mesh == "pending":
		out.Outside = "it is being enrolled: `meshctl local status` says what it waits for"
	case p.Mesh == "leaving":
		out.Outside = "it is leaving the mesh"
	default:
		out.Outside = "neither it nor its namespace has the label istio.io/dataplane-mode=ambient (or the pod has =none); label one in the YAML and run `meshctl local up` again"
	}
	return out
}

// localStatus is what to do about a name that a local mesh does not have.
const localStatus = "`meshctl local status` lists the pods"

func (l *localMesh) Pod(ctx context.Context, namespace, name string) (Pod, error) {
	pods, err := l.Pods(ctx, namespace)
	if err != nil {
		return Pod{}, err
	}
	var found []Pod
	hint := localStatus
	for _, p := range pods {
		switch {
		case p.Name == name:
			found = append(found, p)
		case deploymentPod(name, p.Name):
			hint = "did you mean deploy/" + name + ", or its pod " + p.Name + "?"
		}
	}
	switch len(found) {
	case 0:
		return Pod{}, &NotFoundError{Kind: "pod", Namespace: namespace, Name: name, Hint: hint}
	case 1:
		return found[0], nil
	}
	return Pod{}, &NotFoundError{Kind: "single pod", Name: name, Hint: "namespaces " + found[0].Namespace + " and " + found[1].Namespace + " have one; say NAMESPACE/NAME or -n"}
}

func (l *localMesh) Services(ctx context.Context, namespace string) ([]Service, error) {
	st, err := l.mesh.Status(ctx)
	if err != nil {
		return nil, err
	}
	var out []Service
	for _, s := range st.Services {
		if namespace != "" && s.Namespace != namespace {
			continue
		}
		svc := Service{Namespace: s.Namespace, Name: s.Name, Hostname: s.Name + "." + s.Namespace + ".svc.cluster.local", IPs: s.IPs, HasSelector: true}
		for _, p := range s.Ports {
			// "80/TCP"
			number, _, _ := strings.Cut(p, "/")
			if n, err := strconv.ParseUint(number, 10, 16); err == nil {
				svc.Ports = append(svc.Ports, uint16(n))
			}
		}
		out = append(out, svc)
	}
	return out, nil
}
