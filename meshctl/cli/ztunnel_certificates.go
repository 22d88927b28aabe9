package cli

import (
	"cmp"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tulle-mesh/tulle/certs"
)

// chainCertificate is one certificate that a ztunnel holds, as `meshctl ztunnel
// certificates -o json` prints it.
type chainCertificate struct {
	Node     string `json:"node"`
	Identity string `json:"identity"`
	// Type is Leaf, Intermediate or Root.
	Type string `json:"type"`
	// Status is Available, Initializing or "Unavailable: why".
	Status string `json:"status"`
	// Valid is whether the time is within the certificate's.
	Valid     bool      `json:"valid"`
	Serial    string    `json:"serial,omitempty"`
	NotBefore time.Time `json:"notBefore,omitzero"`
	NotAfter  time.Time `json:"notAfter,omitzero"`
}

func newZtunnelCertificates(s *streams, t *targetFlags) *cobra.Command {
	f := &proxyFlags{target: t}
	output := outputFlag("table")
	cmd := &cobra.Command{
		Use:     "certificates [POD]",
		Aliases: []string{"certificate", "certs"},
		Short:   "List the certificates that the ztunnels hold, with their chains",
		Args:    oneArgument,
		RunE: func(cmd *cobra.Command, args []string) error {
			sel, err := f.choose(cmd.Context(), args)
			if err != nil {
				return err
			}
			answers, failed := sel.dumps(cmd.Context())
			if len(answers) == 0 {
				return failed
			}
			list, err := chains(answers, time.Now())
			if err != nil {
				return err
			}
			list = slices.DeleteFunc(list, func(c chainCertificate) bool {
				ns, account, _ := strings.Cut(shortIdentity(c.Identity), "/")
				if sel.pod != nil {
					return ns != sel.pod.Namespace || sel.pod.Account != "" && account != sel.pod.Account
				}
				return f.namespace != "" && ns != f.namespace
			})
			err = output.print(s.out, list, func() {
				if len(list) == 0 {
					fmt.Fprintln(s.out, "no certificates there: no pod of the mesh runs there")
					return
				}
				rows := [][]string{{"CERTIFICATE NAME", "TYPE", "STATUS", "VALID CERT", "SERIAL NUMBER", "NOT AFTER", "NOT BEFORE", "NODE"}}
				for _, c := range list {
					serial := c.Serial
					if !output.wide() {
						serial = shorten(serial, 16)
					}
					rows = append(rows, []string{c.Identity, c.Type, c.Status, fmt.Sprint(c.Valid), serial, rfc3339(c.NotAfter), rfc3339(c.NotBefore), c.Node})
				}
				table(s.out, rows)
			})
			return cmp.Or(failed, err)
		},
	}
	f.add(cmd, "show identities of this namespace only; namespace of POD")
	cmd.Flags().VarP(&output, "output", "o", outputUsage)
	return cmd
}

func rfc3339(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

// chains lists every certificate of every identity: leaf, intermediates, roots.
func chains(answers []answer, now time.Time) ([]chainCertificate, error) {
	list := []chainCertificate{}
	for _, a := range answers {
		for _, d := range a.dump.Certificates {
			if len(d.CertChain) == 0 {
				list = append(list, chainCertificate{Node: a.from.Node, Identity: d.Identity, Type: "Leaf", Status: d.State})
			}
			add := func(kind string, dumped certs.DumpCertificate) error {
				c := chainCertificate{Node: a.from.Node, Identity: d.Identity, Type: kind, Status: d.State}
				var err1, err2 error
				c.NotBefore, err1 = time.Parse(time.RFC3339, dumped.ValidFrom)
				c.NotAfter, err2 = time.Parse(time.RFC3339, dumped.ExpirationTime)
				if err := cmp.Or(err1, err2); err != nil {
					return fmt.Errorf("%s: certificate of %s: %w", a.from, d.Identity, err)
				}
				c.Valid = !now.Before(c.NotBefore) && now.Before(c.NotAfter)
				if n, ok := new(big.Int).SetString(dumped.SerialNumber, 10); ok {
					c.Serial = certs.SerialText(n)
				}
				list = append(list, c)
				return nil
			}
			for i, dumped := range d.CertChain {
				kind := "Leaf"
				if i > 0 {
					kind = "Intermediate"
				}
				if err := add(kind, dumped); err != nil {
					return nil, err
				}
			}
			for _, dumped := range d.RootCerts {
				if err := add("Root", dumped); err != nil {
					return nil, err
				}
			}
		}
	}
	slices.SortStableFunc(list, func(a, b chainCertificate) int {
		return cmp.Or(cmp.Compare(a.Identity, b.Identity), cmp.Compare(a.Node, b.Node))
	})
	return list, nil
}
