package cli

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tulle-mesh/tulle/meshctl/mesh"
)

// connection is one live connection, as `meshctl ztunnel connections -o json`
// prints it.
type connection struct {
	Node      string `json:"node"`
	Namespace string `json:"namespace"`
	Workload  string `json:"workload"`
	// Direction is inbound or outbound, seen from the workload.
	Direction string `json:"direction"`
	mesh.Connection
	// AgeSeconds is since it was opened.
	AgeSeconds float64 `json:"ageSeconds"`
	// PeerIdentity is what mutual TLS proved of the other end.
	PeerIdentity string `json:"peerIdentity,omitempty"`

	local, remote, target string
}

func newConnections(s *streams, t *targetFlags) *cobra.Command {
	f := &proxyFlags{target: t}
	output := outputFlag("table")
	var direction string
	var raw bool
	cmd := &cobra.Command{
		Use:     "connections [POD]",
		Aliases: []string{"connection"},
		Short:   "List the live connections of the mesh, with bytes, age and peer",
		Long: `Lists the connections that the ztunnels carry now, each end that is in the mesh
on its own line: inbound at the server, outbound at the client. SENT and RECEIVED
are what the workload's application sent and received.`,
		Example: `  meshctl ztunnel connections
  meshctl ztunnel connections deploy/web -n shop --direction inbound
  meshctl ztunnel connections --node worker-2 --raw -o wide`,
		Args: oneArgument,
		RunE: func(cmd *cobra.Command, args []string) error {
			switch direction {
			case "", "inbound", "outbound":
			default:
				return fmt.Errorf("--direction %q: must be inbound or outbound", direction)
			}
			sel, err := f.choose(cmd.Context(), args)
			if err != nil {
				return err
			}
			answers, failed := sel.dumps(cmd.Context())
			if len(answers) == 0 {
				return failed
			}
			list := connections(answers, raw, time.Now())
			list = slices.DeleteFunc(list, func(c connection) bool {
				switch {
				case direction != "" && c.Direction != direction:
					return true
				case sel.pod != nil:
					return c.Namespace != sel.pod.Namespace || c.Workload != sel.pod.Name
				}
				return f.namespace != "" && c.Namespace != f.namespace
			})
			err = output.print(s.out, list, func() {
				if len(list) == 0 {
					fmt.Fprintln(s.out, "no live connections there")
					return
				}
				table(s.out, connectionRows(list, output.wide()))
			})
			return cmp.Or(failed, err)
		},
	}
	f.add(cmd, "show workloads of this namespace only; namespace of POD")
	cmd.Flags().StringVar(&direction, "direction", "", "inbound or outbound only")
	_ = cmd.RegisterFlagCompletionFunc("direction", cobra.FixedCompletions([]string{"inbound", "outbound"}, cobra.ShellCompDirectiveNoFileComp))
	cmd.Flags().BoolVar(&raw, "raw", false, "addresses instead of names")
	cmd.Flags().VarP(&output, "output", "o", outputUsage)
	return cmd
}

// connections lists those of all answers by workload, the oldest first.
func connections(answers []answer, raw bool, now time.Time) []connection {
	list := []connection{}
	for _, a := range answers {
		names := namesOf(a.dump)
		if raw {
			names = names.none()
		}
		for _, w := range a.dump.WorkloadState {
			add := func(direction string, all []mesh.Connection) {
				for _, c := range all {
					out := connection{Node: a.from.Node, Namespace: w.Info.Namespace, Workload: w.Info.Name, Direction: direction, Connection: c}
					if !c.Opened.IsZero() {
						out.AgeSeconds = max(0, now.Sub(c.Opened).Seconds())
					}
					if direction == "inbound" {
						out.local, out.remote, out.PeerIdentity = names.workload(c.ActualDst, c.DstWorkload), names.workload(c.Src, c.SrcWorkload), c.SrcIdentity
						out.target = names.service(c.DstService)
					} else {
						out.local, out.remote, out.PeerIdentity = names.workload(c.Src, c.SrcWorkload), names.workload(c.ActualDst, c.DstWorkload), c.DstIdentity
						out.target = names.target(c.OriginalDst)
					}
					list = append(list, out)
				}
			}
			add("inbound", w.Connections.Inbound)
			add("outbound", w.Connections.Outbound)
		}
	}
	slices.SortFunc(list, func(a, b connection) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Workload, b.Workload), cmp.Compare(a.Direction, b.Direction),
			a.Opened.Compare(b.Opened), cmp.Compare(a.Src, b.Src), cmp.Compare(a.ActualDst, b.ActualDst))
	})
	return list
}

func connectionRows(list []connection, wide bool) [][]string {
	rows := [][]string{{"WORKLOAD", "DIRECTION", "LOCAL", "REMOTE", "REMOTE TARGET", "PROTOCOL", "SENT", "RECEIVED", "AGE", "PEER IDENTITY"}}
	if wide {
		rows[0] = append(rows[0], "NODE", "POLICY")
	}
	for _, c := range list {
		age := "-"
		if !c.Opened.IsZero() {
			age = words(time.Duration(c.AgeSeconds * float64(time.Second)))
		}
		peer := shortIdentity(c.PeerIdentity)
		if wide {
			peer = c.PeerIdentity
		}
		direction := strings.ToUpper(c.Direction[:1]) + c.Direction[1:]
		row := []string{c.Workload + "." + c.Namespace, direction, c.local, c.remote, c.target, c.Protocol,
			bytesText(c.BytesSent), bytesText(c.BytesReceived), age, peer}
		if wide {
			row = append(row, c.Node, c.Policy)
		}
		rows = append(rows, row)
	}
	return rows
}

// shortIdentity is namespace/account of an identity in Istio's form, or all of it.
func shortIdentity(id string) string {
	_, rest, ok := strings.Cut(id, "/ns/")
	ns, account, ok2 := strings.Cut(rest, "/sa/")
	if !ok || !ok2 {
		return id
	}
	return ns + "/" + account
}

// names maps addresses to names; nil maps keep the addresses.
type names struct {
	pods, vips map[netip.Addr]string
	raw        bool
}

func namesOf(d *mesh.Dump) names {
	n := names{pods: map[netip.Addr]string{}, vips: map[netip.Addr]string{}}
	for _, w := range d.Workloads {
		if w.NetworkMode == "HostNetwork" {
			continue // it shares the address with others
		}
		for _, ip := range w.WorkloadIPs {
			if a, err := netip.ParseAddr(ip); err == nil {
				n.pods[a.Unmap()] = w.Name + "." + w.Namespace
			}
		}
	}
	for _, s := range d.Services {
		for _, vip := range s.VIPs {
			_, ip, _ := strings.Cut(vip, "/")
			if a, err := netip.ParseAddr(ip); err == nil {
				n.vips[a.Unmap()] = s.Name + "." + s.Namespace
			}
		}
	}
	return n
}

func (names) none() names { return names{raw: true} }

// workload names an address: by what the ztunnel noted when the connection opened,
// else by what the address belongs to now.
func (n names) workload(addr, noted string) string {
	ap, err := netip.ParseAddrPort(addr)
	if err != nil || n.raw {
		return addr
	}
	if ns, name, ok := strings.Cut(noted, "/"); ok {
		return fmt.Sprintf("%s.%s:%d", name, ns, ap.Port())
	}
	if name, ok := n.pods[ap.Addr().Unmap()]; ok {
		return fmt.Sprintf("%s:%d", name, ap.Port())
	}
	return addr
}

// target names what a client dialled.
func (n names) target(addr string) string {
	ap, err := netip.ParseAddrPort(addr)
	if err != nil || n.raw {
		return addr
	}
	if name, ok := n.vips[ap.Addr().Unmap()]; ok {
		return fmt.Sprintf("%s:%d", name, ap.Port())
	}
	return n.workload(addr, "")
}

// service names the service of "namespace/hostname" as target does.
func (n names) service(key string) string {
	_, host, ok := strings.Cut(key, "/")
	if !ok || n.raw {
		return ""
	}
	if name, _, ok := strings.Cut(host, ".svc."); ok {
		return name
	}
	return host
}
