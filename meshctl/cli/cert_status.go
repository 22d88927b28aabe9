package cli

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"math/big"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tulle-mesh/tulle/certs"
	"github.com/tulle-mesh/tulle/meshctl/mesh"
)

// certificate is one identity on one node, as `meshctl cert status -o json`
// prints it.
type certificate struct {
	Identity  string    `json:"identity"`
	Node      string    `json:"node"`
	Serial    string    `json:"serial,omitempty"`
	NotBefore time.Time `json:"notBefore,omitzero"`
	NotAfter  time.Time `json:"notAfter,omitzero"`
	// LeftSeconds is the time left, negative when it is over.
	LeftSeconds int64 `json:"leftSeconds,omitempty"`
	// State is what the ztunnel says: pending, valid, renewing, overdue, expired
	// or failed.
	State string `json:"state"`
	// Error is why the last attempt to get one failed.
	Error string   `json:"error,omitempty"`
	Pods  []string `json:"pods"`
}

func newCertStatus(s *streams, t *targetFlags) *cobra.Command {
	f := &proxyFlags{target: t}
	output := outputFlag("table")
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show every workload's certificate, as the ztunnels hold it",
		Long: `Asks the ztunnel of every node which certificates it holds, and shows identity,
node, time left and state; what needs attention comes first, with the reason below
the table. -o wide adds serial number, validity and the pods that use each.`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			sel, err := f.choose(cmd.Context(), nil)
			if err != nil {
				return err
			}
			answers, failed := sel.dumps(cmd.Context())
			if len(answers) == 0 {
				return failed
			}
			list, err := certificates(answers, time.Now())
			if err != nil {
				return err
			}
			if f.namespace != "" {
				list = slices.DeleteFunc(list, func(c certificate) bool { return !strings.HasPrefix(shortIdentity(c.Identity), f.namespace+"/") })
			}
			err = output.print(s.out, list, func() { printCertificates(s.out, list, output.wide()) })
			return cmp.Or(failed, err)
		},
	}
	f.add(cmd, "show identities of this namespace only")
	cmd.ValidArgsFunction = cobra.NoFileCompletions
	cmd.Flags().VarP(&output, "output", "o", outputUsage)
	return cmd
}

// certificates lists one entry for each identity and node.
func certificates(answers []answer, now time.Time) ([]certificate, error) {
	list := []certificate{}
	for _, a := range answers {
		of, err := certificatesOf(a.dump, a.from.Node, now)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", a.from, err)
		}
		list = append(list, of...)
	}
	sort.SliceStable(list, func(i, j int) bool {
		a, b := list[i], list[j]
		if ra, rb := rank(a.State), rank(b.State); ra != rb {
			return ra < rb
		}
		if a.Identity != b.Identity {
			return a.Identity < b.Identity
		}
		return a.Node < b.Node
	})
	return list, nil
}

// rank sorts what needs attention to the top.
func rank(state string) int {
	switch state {
	case "valid":
		return 2
	case "renewing", "pending":
		return 1
	}
	return 0
}

// podsOf lists the pods that a ztunnel serves under an identity.
func podsOf(d *mesh.Dump, identity string) []string {
	list := []string{}
	for _, w := range d.WorkloadState {
		if shortIdentity(identity) == w.Info.Namespace+"/"+w.Info.ServiceAccount {
			list = append(list, w.Info.Namespace+"/"+w.Info.Name)
		}
	}
	slices.Sort(list)
	return list
}

// certificatesOf reads the certificates of one ztunnel. Tulle's own tells more in
// certificateStatus; a foreign one has only what Istio's has.
func certificatesOf(dump *mesh.Dump, node string, now time.Time) ([]certificate, error) {
	var list []certificate
	for _, d := range dump.CertificateStatus {
		list = append(list, certificate{Identity: d.Identity.String(), Node: node, State: string(d.State), Serial: d.Serial,
			NotBefore: d.NotBefore, NotAfter: d.NotAfter, Error: d.LastError})
	}
	if dump.CertificateStatus == nil {
		for _, d := range dump.Certificates {
			c := certificate{Identity: d.Identity, Node: node}
			c.State, c.Error = istioState(d.State)
			if len(d.CertChain) > 0 {
				leaf := d.CertChain[0]
				if n, ok := new(big.Int).SetString(leaf.SerialNumber, 10); ok {
					c.Serial = certs.SerialText(n)
				}
				var err1, err2 error
				c.NotBefore, err1 = time.Parse(time.RFC3339, leaf.ValidFrom)
				c.NotAfter, err2 = time.Parse(time.RFC3339, leaf.ExpirationTime)
				if err := errors.Join(err1, err2); err != nil {
					return list, fmt.Errorf("config_dump: certificate of %s: %w", d.Identity, err)
				}
			}
			list = append(list, c)
		}
	}
	for i := range list {
		c := &list[i]
		c.Pods = podsOf(dump, c.Identity)
		if c.NotAfter.IsZero() {
			continue
		}
		c.LeftSeconds = int64(c.NotAfter.Sub(now).Seconds())
		if c.LeftSeconds <= 0 {
			c.State = string(certs.StateExpired)
		}
	}
	return list, nil
}

// istioState puts Istio's words for a certificate's state into ours.
func istioState(text string) (state, reason string) {
	switch word, rest, _ := strings.Cut(text, ": "); word {
	case "Available":
		return string(certs.StateValid), ""
	case "Initializing":
		return string(certs.StatePending), ""
	default:
		return string(certs.StateFailed), rest
	}
}

func printCertificates(w io.Writer, list []certificate, wide bool) {
	if len(list) == 0 {
		fmt.Fprintln(w, "no certificates: no pod is in the mesh (label its namespace istio.io/dataplane-mode=ambient)")
		return
	}
	rows := [][]string{{"IDENTITY", "NODE", "LEFT", "STATE"}}
	if wide {
		rows[0] = append(rows[0], "SERIAL", "NOT BEFORE", "NOT AFTER", "PODS")
	}
	for _, c := range list {
		row := []string{strings.TrimPrefix(c.Identity, "spiffe://"), c.Node, "", c.State}
		switch {
		case c.NotAfter.IsZero():
		case c.LeftSeconds <= 0:
			row[2] = "none"
		default:
			row[2] = words(time.Duration(c.LeftSeconds) * time.Second)
		}
		if wide {
			row = append(row, shorten(c.Serial, 16), moment(c.NotBefore), moment(c.NotAfter), strings.Join(c.Pods, ","))
		}
		rows = append(rows, row)
	}
	table(w, rows)
	for _, c := range list {
		if c.Error != "" {
			fmt.Fprintf(w, "%s on %s: %s\n", c.Identity, c.Node, c.Error)
		}
	}
}

func shorten(s string, n int) string {
	if len(s) > n {
		return s[:n] + "…"
	}
	return s
}

func moment(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02 15:04:05Z")
}
