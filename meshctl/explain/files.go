package explain

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	api "github.com/tulle-mesh/tulle/api/waypoint"
	"github.com/tulle-mesh/tulle/internal/authz/request"
	"github.com/tulle-mesh/tulle/internal/workload"
	"github.com/tulle-mesh/tulle/istiod-lite/source"
	"github.com/tulle-mesh/tulle/istiod-lite/source/file"
	"github.com/tulle-mesh/tulle/istiod-lite/translate"
	"github.com/tulle-mesh/tulle/waypoint/message"
	"github.com/tulle-mesh/tulle/waypoint/route"
)

// rootNamespace is where files are taken to have the mesh's own objects.
const rootNamespace = "istio-system"

// checkedBy is a waypoint that is ready, for a service of which files may say nothing of
// one: what a waypoint would do is the question.
const checkedBy = `apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: meshctl-check, namespace: NS}
spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
---
apiVersion: v1
kind: Service
metadata: {name: meshctl-check, namespace: NS}
spec: {clusterIP: 192.0.2.1, selector: {gateway.networking.k8s.io/gateway-name: meshctl-check}, ports: [{name: hbone, port: 15008}]}
---
apiVersion: v1
kind: Pod
metadata: {name: meshctl-check, namespace: NS, labels: {gateway.networking.k8s.io/gateway-name: meshctl-check}}
spec: {nodeName: none, serviceAccountName: meshctl-check, containers: [{name: waypoint, image: none}]}
status: {podIP: 192.0.2.2, conditions: [{type: Ready, status: "True"}]}
`

// AskFiles answers as a waypoint would that had got the objects of the files, or of the
// files in folders: by the translation of the control plane and the waypoint's own code.
// Endpoints are not looked at. service is NAME or NAMESPACE/NAME.
func AskFiles(paths []string, service string, port uint16, from string, r HTTP) (*WaypointAnswer, error) {
	objects, name, err := readFiles(paths, service)
	if err != nil {
		return nil, err
	}
	svc := objects.Services[name].DeepCopy()
	if svc.Labels == nil {
		svc.Labels = map[string]string{}
	}
	svc.Labels["istio.io/use-waypoint"] = "meshctl-check"
	delete(svc.Labels, "istio.io/use-waypoint-namespace")
	if svc.Spec.ClusterIP == "" {
		svc.Spec.ClusterIP = "192.0.2.3"
	}
	objects.Services[name] = svc
	mesh := translate.Translate(objects, translate.Options{RootNamespace: rootNamespace})
	key := name.Namespace + "/" + name.Name + "." + name.Namespace + ".svc.cluster.local"
	resource := mesh.WaypointServices[key]
	if resource == nil {
		return nil, fmt.Errorf("a waypoint could not stand before Service %s", name)
	}
	body, ok := resource.Body.(*api.Service)
	if !ok {
		return nil, fmt.Errorf("Service %s became a %T", name, resource.Body)
	}
	compiled, err := route.Compile(body)
	if err != nil {
		return nil, err
	}
	p := compiled.Port(port)
	if p == nil {
		return nil, fmt.Errorf("Service %s has no port %d", name, port)
	}
	a := &WaypointAnswer{
		Gateway: "(files)", Service: key, Port: port, Protocol: p.Protocol.String(), Policies: compiled.Policies,
		Authentications: compiled.Authentications, RateLimits: compiled.RateLimits, Notes: []string{"endpoints are not looked at"},
	}
	client, err := identityOf(from)
	if err != nil {
		return nil, fmt.Errorf("--from: %w", err)
	}
	peer, err := request.NewPeer(client)
	if err != nil && !client.IsZero() {
		return nil, err
	}
	if !client.IsZero() {
		a.From = client.String()
	}
	var q *message.Request
	if isHTTP(a.Protocol) {
		if q, err = requestOf(r, svc.Name+"."+svc.Namespace+".svc.cluster.local"); err != nil {
			return nil, err
		}
		a.Method, a.Path = q.Method, q.Target()
	}
	if err := a.judge(mesh, peer, q, port); err != nil {
		return nil, err
	}
	if q != nil {
		a.Route = p.Explain(peer.Namespace(), q)
	} else {
		a.Route = p.ExplainConnect(peer.Namespace(), "")
	}
	return a, nil
}

// readFiles reads the objects and finds the service.
func readFiles(paths []string, service string) (*source.Objects, source.Name, error) {
	var texts []string
	for _, path := range paths {
		err := filepath.WalkDir(path, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			if ext := filepath.Ext(path); len(paths) > 0 && !slices.Contains([]string{".yaml", ".yml", ".json"}, ext) && !slices.Contains(paths, path) {
				return nil
			}
			text, err := os.ReadFile(path)
			texts = append(texts, string(text))
			return err
		})
		if err != nil {
			return nil, source.Name{}, err
		}
	}
	decode := func(extra string) (*source.Objects, error) {
		objects, problems := file.Decode(strings.Join(paths, ", "), []byte(strings.Join(append(slices.Clone(texts), extra), "\n---\n")), source.Checker{RootNamespace: rootNamespace})
		var errs []error
		for i, p := range problems {
			if i == 5 {
				errs = append(errs, fmt.Errorf("and %d more problems", len(problems)-i))
				break
			}
			errs = append(errs, errors.New(p.Error()))
		}
		return objects, errors.Join(errs...)
	}
	objects, err := decode("")
	if err != nil {
		return nil, source.Name{}, err
	}
	var found []source.Name
	for name := range objects.Services {
		if namesService(service, name) {
			found = append(found, name)
		}
	}
	switch len(found) {
	case 0:
		return nil, source.Name{}, fmt.Errorf("there is no Service %s in %s", service, strings.Join(paths, ", "))
	case 1:
	default:
		return nil, source.Name{}, fmt.Errorf("there are several Services %s; say NAMESPACE/NAME", service)
	}
	objects, err = decode(strings.ReplaceAll(checkedBy, "NS", found[0].Namespace))
	return objects, found[0], err
}

func namesService(text string, name source.Name) bool {
	host := name.Name + "." + name.Namespace
	return slices.Contains([]string{name.Name, name.Namespace + "/" + name.Name, host, host + ".svc.cluster.local", name.Namespace + "/" + host + ".svc.cluster.local"}, text)
}

// identityOf reads NAMESPACE/ACCOUNT or a SPIFFE ID; empty is nobody.
func identityOf(from string) (spiffeid.ID, error) {
	if from == "" {
		return spiffeid.ID{}, nil
	}
	if id, err := spiffeid.FromString(from); err == nil {
		return id, nil
	}
	namespace, account, _ := strings.Cut(from, "/")
	return workload.NewIdentity("", namespace, account)
}

func requestOf(r HTTP, host string) (*message.Request, error) {
	out := &message.Request{Method: r.Method, Scheme: "http", Authority: r.Authority}
	if out.Method == "" {
		out.Method = "GET"
	}
	if out.Authority == "" {
		out.Authority = host
	}
	target := r.Path
	if target == "" {
		target = "/"
	}
	var err error
	if out.Path, out.Query, out.HasQuery, err = message.ParseTarget(target); err != nil {
		return nil, fmt.Errorf("--path: %w", err)
	}
	for _, h := range r.Headers {
		name, value, found := strings.Cut(h, ":")
		name, value = strings.ToLower(strings.TrimSpace(name)), strings.TrimSpace(value)
		if !found || !message.ValidName(name) || !message.ValidValue(value) {
			return nil, fmt.Errorf("--header: %q is not NAME:VALUE", h)
		}
		out.Header.Add(name, value)
	}
	return out, nil
}

// judge asks the policies that apply.
func (a *WaypointAnswer) judge(mesh *translate.Mesh, peer request.Peer, q *message.Request, port uint16) error {
	var all []*request.Policy
	var missing []string
	for _, name := range a.Policies {
		r := mesh.WaypointPolicies[name]
		if r == nil {
			missing = append(missing, name)
			continue
		}
		body, ok := r.Body.(*api.Policy)
		if !ok {
			return fmt.Errorf("policy %s became a %T", name, r.Body)
		}
		p, err := request.Compile(body)
		if err != nil {
			return fmt.Errorf("policy %s: %w", name, err)
		}
		all = append(all, p)
	}
	set := request.NewPolicies(all...)
	for _, name := range missing {
		set = set.WithMissing(name)
	}
	address := netip.IPv4Unspecified()
	attributes := request.Attributes{Source: address, Remote: address, Peer: peer, Destination: netip.AddrPortFrom(netip.Addr{}, port)}
	if q != nil {
		attributes.Request = &request.Request{
			Method: q.Method, Scheme: q.Scheme, Authority: q.Authority, Path: q.Path, Folded: message.Folded(q.Path),
			Query: q.Query, HasQuery: q.HasQuery, Fields: &q.Header,
		}
	}
	permit, _, err := set.Authorize(&attributes, set.Consult(&attributes))
	a.Allowed, a.Policy = err == nil, permit.Policy()
	if err != nil {
		a.Reason = err.Error()
	}
	var denial *request.Denial
	if errors.As(err, &denial) {
		a.Policy = denial.Policy
	}
	return nil
}
