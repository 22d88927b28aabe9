package supervisor

import (
	"context"
	"fmt"
	"sort"

	corev1 "k8s.io/api/core/v1"

	"github.com/tulle-mesh/tulle/meshctl/local/control"
	"github.com/tulle-mesh/tulle/meshctl/local/plan"
)

const noteUDP = "UDP is not captured: what pods send and receive over UDP goes past the mesh, in plaintext and without policy."

func (s *Supervisor) status(ctx context.Context) control.Status {
	st := control.Status{
		Name: s.settings.Name, StateDir: s.settings.StateDir, Version: s.settings.Version,
		Started: s.started, Rootless: s.settings.Rootless, Mesh: !s.settings.NoMesh,
		BinDir: s.settings.BinDir, TrustDomain: s.settings.TrustDomain,
		ZtunnelArgs: s.settings.ZtunnelArgs, LogLevel: s.settings.LogLevel,
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	if s.controlPlane != nil {
		c := s.controlPlane.status()
		st.ControlPlane = &c
		if cp, err := s.askControlPlane(ctx); err == nil {
			st.ConfigErrors = cp.problems
			st.Notes = append(st.Notes, cp.warnings...)
		}
		st.Notes = append(st.Notes, noteUDP)
	}
	known := map[string]podStatus{}
	for _, n := range s.nodes {
		node := control.Node{Name: n.Name, Addresses: []string{n.Lan4.Addr().String(), n.Lan6.Addr().String()}}
		if n.agent != nil {
			node.Components = []control.Component{n.ztunnel.status(), n.agent.status()}
			if pods, err := n.api.pods(ctx); err == nil {
				for _, p := range pods {
					known[p.UID] = p
				}
			}
		}
		st.Nodes = append(st.Nodes, node)
	}
	s.mu.Lock()
	pods := make([]*pod, 0, len(s.pods))
	for _, p := range s.pods {
		pods = append(pods, p)
	}
	current := s.plan
	s.mu.Unlock()
	ready := map[plan.PodKey]bool{}
	st.Pods = []control.Pod{}
	for _, p := range pods {
		one := p.status()
		agent := known[one.UID]
		one.OlderConnections = agent.OlderConnectionCount
		if one.Mesh == string(meshIn) && agent.State != "enrolled" && agent.State != "" {
			// Its ztunnel is gone or new: the pod's new connections are refused.
			one.Mesh, one.Reason = string(meshPending), agent.Reason
		}
		ready[plan.PodKey{Namespace: one.Namespace, Name: one.Name}] = one.Ready
		st.Pods = append(st.Pods, one)
	}
	sort.Slice(st.Pods, func(i, j int) bool {
		a, b := st.Pods[i], st.Pods[j]
		return a.Namespace < b.Namespace || a.Namespace == b.Namespace && a.Name < b.Name
	})
	st.Services = services(current, func(key plan.PodKey) bool { return ready[key] })
	return st
}

func services(p *plan.Plan, ready func(plan.PodKey) bool) []control.Service {
	list := []control.Service{}
	if p == nil {
		return list
	}
	for _, s := range p.Services {
		one := control.Service{Namespace: s.Namespace, Name: s.Name, IPs: []string{}, Ready: p.Ready(s, ready)}
		for _, ip := range s.Addresses() {
			one.IPs = append(one.IPs, ip.String())
		}
		for _, port := range s.Object.Spec.Ports {
			protocol := port.Protocol
			if protocol == "" {
				protocol = corev1.ProtocolTCP
			}
			one.Ports = append(one.Ports, fmt.Sprintf("%d/%s", port.Port, protocol))
		}
		list = append(list, one)
	}
	return list
}
