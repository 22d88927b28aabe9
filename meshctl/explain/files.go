package explain

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	api "github.com/tulle-mesh/tulle/api/waypoint"
	"github.com/tulle-mesh/tulle/internal/authz/request"
	"github.com/tulle-mesh/tulle/istiod-lite/source"
	"github.com/tulle-mesh/tulle/istiod-lite/source/file"
	"github.com/tulle-mesh/tulle/istiod-lite/translate"
	"github.com/tulle-mesh/tulle/meshctl/local/manifest"
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

const (
	// maxProblems and maxKnown bound what an error names.
	maxProblems = 5
	maxKnown    = 10
)

// AskFiles answers as a waypoint would that had got the objects of the files, which are
// read as `meshctl local up -f` reads them: by the translation of the control plane and the waypoint's own code.
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
		var ports []string
		for _, one := range compiled.Describe() {
			ports = append(ports, strconv.Itoa(int(one.Port)))
		}
		return nil, fmt.Errorf("Service %s has no port %d; its ports are %s", name, port, strings.Join(ports, ", "))
	}
	a := &WaypointAnswer{
		Gateway: "(files)", Service: key, Port: port, Protocol: p.Protocol.String(), Policies: compiled.Policies,
		Authentications: compiled.Authentications, RateLimits: compiled.RateLimits, Notes: []string{"endpoints are not looked at"},
	}
	client, err := identityOf(from)
	if err != nil {
		return nil, err
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
		if q, err = r.message(svc.Name + "." + svc.Namespace + ".svc.cluster.local"); err != nil {
			return nil, err
		}
		a.Method, a.Path = q.Method, q.Target()
	} else if r.given() {
		a.Notes = append(a.Notes, noRequests(a.Protocol))
	}
	if err := a.judge(mesh, peer, q, port); err != nil {
		return nil, err
	}
	var decision route.Decision
	if q != nil {
		a.Route, decision = p.Explain(peer.Namespace(), q), p.Match(peer.Namespace(), q)
	} else {
		a.Route, decision = p.ExplainConnect(peer.Namespace(), ""), p.Connect(peer.Namespace(), "")
	}
	if why := a.Route.Undecided(); why != "" && a.Allowed {
		a.Allowed, a.Undecided, a.Reason = false, true, why
	}
	switch {
	case decision.Kind == route.Default:
		a.Backends = []WaypointBackend{{Backend: fmt.Sprintf("%s:%d", key, port), Weight: 1, Unseen: true}}
	case decision.Rule != nil:
		for _, b := range decision.Rule.Backends {
			a.Backends = append(a.Backends, WaypointBackend{Backend: fmt.Sprintf("%s:%d", b.Service, b.Port), Weight: b.Weight, Fault: b.Fault, Unseen: true})
		}
	}
	return a, nil
}

// readFiles reads the objects and finds the service.
func readFiles(paths []string, service string) (*source.Objects, source.Name, error) {
	docs, err := readLayers(paths)
	if err != nil {
		return nil, source.Name{}, err
	}
	check := source.Checker{RootNamespace: rootNamespace}
	var all []byte
	var errs []error
	for _, d := range docs {
		_, problems := file.Decode("", d.JSON, check)
		for _, p := range problems {
			p.File, p.Line = fmt.Sprintf("%s: document %d", d.File, d.Index), 0
			errs = append(errs, errors.New(p.Error()))
		}
		all = append(append(all, d.JSON...), "\n---\n"...)
	}
	if len(errs) > maxProblems {
		errs = append(errs[:maxProblems], fmt.Errorf("and %d more problems", len(errs)-maxProblems))
	}
	if len(errs) > 0 {
		return nil, source.Name{}, errors.Join(errs...)
	}
	decode := func(extra string) (*source.Objects, error) {
		objects, problems := file.Decode(strings.Join(paths, ", "), append(slices.Clip(all), extra...), check)
		var errs []error
		for _, p := range problems {
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
	slices.SortFunc(found, func(a, b source.Name) int { return strings.Compare(a.String(), b.String()) })
	switch len(found) {
	case 0:
		return nil, source.Name{}, fmt.Errorf("there is no Service %s in %s: %s", service, strings.Join(paths, ", "), known(objects))
	case 1:
	default:
		return nil, source.Name{}, fmt.Errorf("there are several Services %s, %s and %s: say NAMESPACE/NAME", service, found[0], found[1])
	}
	objects, err = decode(strings.ReplaceAll(checkedBy, "NS", found[0].Namespace))
	return objects, found[0], err
}

// known names the Services that there are.
func known(objects *source.Objects) string {
	var names []string
	for name := range objects.Services {
		names = append(names, name.String())
	}
	slices.Sort(names)
	switch {
	case len(names) == 0:
		return "it has none"
	case len(names) > maxKnown:
		return "they are " + strings.Join(names[:maxKnown], ", ") + fmt.Sprintf(" and %d more", len(names)-maxKnown)
	case len(names) == 1:
		return "there is " + names[0]
	}
	return "they are " + strings.Join(names, ", ")
}

// readLayers reads files as `meshctl local up` does: folders without their sub-folders,
// and an object of a later argument in the place of the one of the same name in an earlier
// one. Lists are taken apart, so that this holds for their items.
func readLayers(paths []string) ([]manifest.Document, error) {
	docs, err := manifest.Read(paths)
	if err != nil {
		return nil, err
	}
	var all []manifest.Document
	for _, d := range docs {
		var list struct {
			APIVersion, Kind string
			Items            []json.RawMessage
		}
		if json.Unmarshal(d.JSON, &list) != nil || list.Kind != "List" || list.APIVersion != "v1" {
			all = append(all, d)
			continue
		}
		for _, item := range list.Items {
			one := d
			one.JSON = item
			all = append(all, one)
		}
	}
	var (
		out  []manifest.Document
		at   = map[manifest.Key]int{}
		errs []error
	)
	for _, d := range all {
		var head struct {
			Kind     string
			Metadata struct{ Namespace, Name string }
		}
		if json.Unmarshal(d.JSON, &head) != nil || head.Kind == "" || head.Metadata.Name == "" {
			out = append(out, d) // what is wrong with it is found when it is decoded
			continue
		}
		key := manifest.Key{Kind: head.Kind, Namespace: head.Metadata.Namespace, Name: head.Metadata.Name}
		if key.Namespace == "" && head.Kind != "Namespace" {
			key.Namespace = "default"
		}
		i, twice := at[key]
		switch {
		case !twice:
			at[key] = len(out)
			out = append(out, d)
		case out[i].Layer == d.Layer:
			errs = append(errs, fmt.Errorf("%s: document %d: %v: already defined in %s: document %d; files to be applied one after another are given with an -f each", d.File, d.Index, key, out[i].File, out[i].Index))
		default:
			out[i] = d
		}
	}
	return out, errors.Join(errs...)
}

func namesService(text string, name source.Name) bool {
	host := name.Name + "." + name.Namespace
	return slices.Contains([]string{name.Name, name.Namespace + "/" + name.Name, host, host + ".svc.cluster.local", name.Namespace + "/" + host + ".svc.cluster.local"}, text)
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
	consent := set.Consult(&attributes)
	asks := consent.AgreeAll()
	permit, _, err := set.Authorize(&attributes, consent)
	a.Allowed, a.Policy = err == nil, permit.Policy()
	if err != nil {
		a.Reason = err.Error()
	}
	var denial *request.Denial
	if errors.As(err, &denial) {
		a.Policy = denial.Policy
	}
	if err == nil && len(asks) > 0 {
		a.Allowed, a.Undecided, a.Policy, a.Reason = false, true, asks[0].Policy, request.Undecided(asks)
	}
	return nil
}
