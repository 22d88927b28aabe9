package mesh

import (
	"errors"
	"fmt"
	"slices"

	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"

	api "github.com/tulle-mesh/tulle/api/waypoint"
	"github.com/tulle-mesh/tulle/internal/authz/request"
	"github.com/tulle-mesh/tulle/internal/workload"
	"github.com/tulle-mesh/tulle/internal/xdsclient"
	"github.com/tulle-mesh/tulle/waypoint/route"
)

// The resource types of waypoints, which they subscribe to by Alias.
const (
	ServiceType = "type.googleapis.com/tulle.waypoint.Service"
	PolicyType  = "type.googleapis.com/tulle.waypoint.Policy"

	AuthenticationType = "type.googleapis.com/tulle.waypoint.Authentication"
)

// Alias names what is for the waypoint of a Gateway.
func Alias(namespace, gateway string) string { return "waypoint/" + namespace + "/" + gateway }

// ServiceHandler takes services from the control plane. One that is not well-formed is
// rejected by name, and the last good one stays in force.
func (m *Mesh) ServiceHandler() xdsclient.Handler {
	return xdsclient.HandlerFunc(func(d xdsclient.Delta) []xdsclient.Rejection {
		return m.apply(d, m.putService, m.removeService)
	})
}

// PolicyHandler takes policies. One that cannot be named is rejected; what else is not
// understood makes it stricter.
func (m *Mesh) PolicyHandler() xdsclient.Handler {
	return xdsclient.HandlerFunc(func(d xdsclient.Delta) []xdsclient.Rejection {
		return m.apply(d, m.putPolicy, m.removePolicy)
	})
}

// AuthenticationHandler takes what checks tokens. One that cannot be named is rejected.
func (m *Mesh) AuthenticationHandler() xdsclient.Handler {
	return xdsclient.HandlerFunc(func(d xdsclient.Delta) []xdsclient.Rejection {
		return m.apply(d, m.putAuthentication, m.removeAuthentication)
	})
}

// changed collects the services to put together again.
type changed map[workload.ServiceKey]bool

func (m *Mesh) apply(d xdsclient.Delta, put func(xdsclient.Resource, changed) error, remove func(string, changed)) []xdsclient.Rejection {
	m.mu.Lock()
	defer m.mu.Unlock()
	var rejections []xdsclient.Rejection
	touched := changed{}
	for _, r := range d.Resources {
		if err := put(r, touched); err != nil {
			rejections = append(rejections, xdsclient.Rejection{Name: r.Name, Err: err})
		}
	}
	for _, name := range d.Removed {
		remove(name, touched)
	}
	m.rebuild(touched)
	return rejections
}

func (m *Mesh) putService(r xdsclient.Resource, touched changed) error {
	var s api.Service
	if err := unpack(r, &s); err != nil {
		return err
	}
	key := workload.ServiceKey{Namespace: s.GetNamespace(), Hostname: s.GetHostname()}
	name := key.String()
	if uid := s.GetWorkload(); uid != "" {
		key, name = workloadKey(uid), uid
	}
	if name != r.Name {
		return fmt.Errorf("it calls itself %s", name)
	}
	compiled, err := route.Compile(&s)
	if err != nil {
		return err
	}
	m.routes[key], touched[key] = compiled, true
	m.want("service "+r.Name, append(destinations(&s), r.Name)...)
	return nil
}

// destinations are the services that requests may be sent to.
func destinations(s *api.Service) []string {
	var names []string
	add := func(b *api.Backend) {
		if name := b.GetService(); name != "" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	filters := func(list []*api.Filter) {
		for _, f := range list {
			add(f.GetMirror().GetBackend())
			add(f.GetExternalAuth().GetBackend())
		}
	}
	for _, p := range s.GetPorts() {
		for _, t := range p.GetRoutes() {
			for _, rule := range t.GetRules() {
				filters(rule.GetFilters())
				for _, b := range rule.GetBackends() {
					add(b)
					filters(b.GetFilters())
				}
			}
		}
	}
	return names
}

func (m *Mesh) removeService(name string, touched changed) {
	key, ok := workload.ParseServiceKey(name)
	if !ok || m.routes[key] == nil {
		key = workloadKey(name)
	}
	if m.routes[key] != nil {
		delete(m.routes, key)
		touched[key] = true
		m.want("service " + name)
	}
}

func (m *Mesh) putPolicy(r xdsclient.Resource, touched changed) error {
	var p api.Policy
	if err := unpack(r, &p); err != nil {
		return err
	}
	compiled, err := request.Compile(&p)
	if err != nil {
		return err
	}
	if compiled.Key() != r.Name {
		return fmt.Errorf("it calls itself %s", compiled.Key())
	}
	if w := compiled.Warnings(); len(w) > 0 {
		m.log.Warn("policy is not understood in full, and stricter for it", zap.String("policy", r.Name), zap.Strings("reasons", w))
	}
	if asked := p.GetExternalAuth().GetBackend().GetService(); asked != "" {
		m.want("policy "+r.Name, asked)
	} else {
		m.want("policy " + r.Name)
	}
	m.policies[r.Name] = compiled
	m.touch(r.Name, touched)
	return nil
}

func (m *Mesh) removePolicy(name string, touched changed) {
	if m.policies[name] != nil {
		delete(m.policies, name)
		m.want("policy " + name)
		m.touch(name, touched)
	}
}

// touch marks the services that list a policy.
func (m *Mesh) touch(policy string, touched changed) {
	for key, r := range m.routes {
		if slices.Contains(r.Policies, policy) {
			touched[key] = true
		}
	}
}

func (m *Mesh) putAuthentication(r xdsclient.Resource, touched changed) error {
	var a api.Authentication
	if err := unpack(r, &a); err != nil {
		return err
	}
	compiled, err := m.cfg.Keys.Compile(&a)
	if err != nil {
		return err
	}
	if compiled.Key() != r.Name {
		compiled.Close()
		return fmt.Errorf("it calls itself %s", compiled.Key())
	}
	if w := compiled.Warnings(); len(w) > 0 {
		m.log.Warn("rules of tokens cannot be checked, and refuse them", zap.String("authentication", r.Name), zap.Strings("reasons", w))
	}
	// The new one first, so that keys that both need stay.
	if old := m.authentications[r.Name]; old != nil {
		old.Close()
	}
	m.want("authentication "+r.Name, issuers(&a)...)
	m.authentications[r.Name] = compiled
	m.touchAuthentication(r.Name, touched)
	return nil
}

func (m *Mesh) removeAuthentication(name string, touched changed) {
	if old := m.authentications[name]; old != nil {
		m.want("authentication " + name)
		old.Close()
		delete(m.authentications, name)
		m.touchAuthentication(name, touched)
	}
}

func (m *Mesh) touchAuthentication(name string, touched changed) {
	for key, r := range m.routes {
		if slices.Contains(r.Authentications, name) {
			touched[key] = true
		}
	}
}

func unpack(r xdsclient.Resource, into proto.Message) error {
	if r.Body == nil {
		return errors.New("has no body")
	}
	return r.Body.UnmarshalTo(into)
}
