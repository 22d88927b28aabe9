package explain

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/tulle-mesh/tulle/internal/state"
	"github.com/tulle-mesh/tulle/internal/workload"
	"github.com/tulle-mesh/tulle/meshctl/mesh"
)

// target is the server as the client's ztunnel is asked about it.
type target struct {
	Server
	// key is the service; zero when dest is.
	key workload.ServiceKey
}

// findServer finds what was asked for among the services that the client's node
// proxy knows, then among pods.
func findServer(ctx context.Context, m mesh.Mesh, r Request, client mesh.Pod, services []state.ServiceDump) (target, error) {
	t := target{Server: Server{Asked: r.Server}}
	if dest, err := netip.ParseAddrPort(r.Server); err == nil {
		t.Dest, t.Port = dest, dest.Port()
		return t, nil
	}
	if _, err := netip.ParseAddr(strings.Trim(r.Server, "[]")); err == nil {
		return t, fmt.Errorf("%s: say which port: %s", r.Server, netip.AddrPortFrom(netip.MustParseAddr(strings.Trim(r.Server, "[]")), 80))
	}
	name, port, err := splitPort(r.Server)
	if err != nil {
		return t, err
	}
	if svc := serviceOf(services, name, client.Namespace); svc != nil {
		return t, t.ofService(svc, port)
	}
	pod, err := mesh.Find(ctx, m, client.Namespace, name)
	if err == nil {
		return t, t.ofPod(pod, port)
	}
	var missing *mesh.NotFoundError
	if !errors.As(err, &missing) {
		return t, err
	}
	return t, absent(ctx, m, name, client, services)
}

// splitPort splits NAME[:PORT].
func splitPort(s string) (string, uint16, error) {
	name, text, ok := strings.Cut(s, ":")
	if !ok {
		return s, 0, nil
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil || port == 0 || name == "" {
		return "", 0, fmt.Errorf("%q: must be SERVICE[:PORT], IP:PORT or POD:PORT, with a port number", s)
	}
	return name, uint16(port), nil
}

// serviceOf finds a service by the names that clients in the namespace use.
func serviceOf(all []state.ServiceDump, name, namespace string) *state.ServiceDump {
	ns, short, qualified := strings.Cut(name, "/")
	if kind, rest, ok := strings.Cut(name, "/"); ok && (kind == "svc" || kind == "service" || kind == "services") {
		name, short, qualified = rest, rest, false
	}
	var found *state.ServiceDump
	for i := range all {
		s := &all[i]
		switch {
		case qualified && s.Namespace == ns && (s.Name == short || s.Hostname == short):
			return s
		case !qualified && s.Name == name && s.Namespace == namespace:
			return s
		case !qualified && (s.Hostname == name || isShort(name, s)):
			if found == nil || s.Namespace == namespace || s.Canonical && found.Namespace != namespace {
				found = s
			}
		}
	}
	return found
}

// isShort reports whether name is NAME.NAMESPACE or NAME.NAMESPACE.svc of the
// service.
func isShort(name string, s *state.ServiceDump) bool {
	base := s.Name + "." + s.Namespace
	return name == base || name == base+".svc"
}

func (t *target) ofService(s *state.ServiceDump, port uint16) error {
	t.key = workload.ServiceKey{Namespace: s.Namespace, Hostname: s.Hostname}
	t.Service = t.key.String()
	for _, v := range s.VIPs {
		_, address, _ := strings.Cut(v, "/")
		t.Addresses = append(t.Addresses, address)
	}
	for p := range s.Ports {
		if n, err := strconv.ParseUint(p, 10, 16); err == nil {
			t.Ports = append(t.Ports, uint16(n))
		}
	}
	slices.Sort(t.Ports)
	t.Port = port
	if port != 0 {
		return nil
	}
	switch len(t.Ports) {
	case 0:
		return fmt.Errorf("service %s/%s lists no ports: say which, as %s:PORT", s.Namespace, s.Name, t.Asked)
	case 1:
		t.Port = t.Ports[0]
		return nil
	}
	return fmt.Errorf("service %s/%s has the ports %s: say which, as %s:%d", s.Namespace, s.Name, list(t.Ports), t.Asked, t.Ports[0])
}

func (t *target) ofPod(p mesh.Pod, port uint16) error {
	if port == 0 {
		return fmt.Errorf("%s is pod %s/%s: say which of its ports, as %s:PORT", t.Asked, p.Namespace, p.Name, t.Asked)
	}
	if len(p.IPs) == 0 {
		return fmt.Errorf("pod %s/%s has no address yet (%s)", p.Namespace, p.Name, p.Reason)
	}
	ip, err := netip.ParseAddr(p.IPs[0])
	if err != nil {
		return fmt.Errorf("pod %s/%s: address %q: %w", p.Namespace, p.Name, p.IPs[0], err)
	}
	t.Dest, t.Port = netip.AddrPortFrom(ip, port), port
	return nil
}

// absent says why there is no such server, and what comes nearest.
func absent(ctx context.Context, m mesh.Mesh, name string, client mesh.Pod, known []state.ServiceDump) error {
	ns, short := client.Namespace, name
	if before, after, ok := strings.Cut(name, "/"); ok {
		ns, short = before, after
	} else if before, after, ok := strings.Cut(name, "."); ok {
		short = before
		ns, _, _ = strings.Cut(after, ".")
	}
	all, err := m.Services(ctx, "")
	if err != nil {
		return err
	}
	var elsewhere, here []string
	for _, s := range all {
		switch {
		case s.Name == short && s.Namespace == ns && s.ExternalName != "":
			return fmt.Errorf("service %s/%s is of type ExternalName: its name is an alias of %s in DNS, which the mesh does not see; explain that address instead", ns, short, s.ExternalName)
		case s.Name == short && s.Namespace == ns:
			return fmt.Errorf("service %s/%s exists, but the ztunnel of node %s does not know it: the control plane has not told it yet, or cannot (see `meshctl check`)", ns, short, client.Node)
		case s.Name == short:
			elsewhere = append(elsewhere, s.Namespace+"/"+s.Name)
		case s.Namespace == ns:
			here = append(here, s.Name)
		}
	}
	for _, s := range known {
		if s.Namespace == ns && !slices.Contains(here, s.Name) {
			here = append(here, s.Name)
		}
	}
	slices.Sort(here)
	text := fmt.Sprintf("there is neither a service nor a pod %s in namespace %s", short, ns)
	switch {
	case len(elsewhere) > 0:
		text += "; did you mean " + strings.Join(elsewhere, " or ") + "?"
	case len(here) > 0:
		const most = 8
		if len(here) > most {
			here = append(here[:most], "…")
		}
		text += "; its services are " + strings.Join(here, ", ")
	default:
		text += ", and no service at all"
	}
	return errors.New(text)
}

func list(ports []uint16) string {
	out := make([]string, 0, len(ports))
	for _, p := range ports {
		out = append(out, strconv.Itoa(int(p)))
	}
	return strings.Join(out, ", ")
}
