package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"sort"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tulle-mesh/tulle/certs"
	"github.com/tulle-mesh/tulle/meshctl/local"
	"github.com/tulle-mesh/tulle/meshctl/local/control"
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

func newCertStatus(s *streams, flags *localFlags) *cobra.Command {
	output := outputFlag("table")
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show every workload's certificate, as the ztunnels hold it",
		Long: `Asks the ztunnel of every node which certificates it holds, and shows identity,
node, serial number, validity, time left and state; what needs attention comes
first.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			mesh, err := flags.open(cmd.Context())
			if err != nil {
				return err
			}
			list, err := certificates(cmd.Context(), mesh)
			if err != nil {
				return err
			}
			if output == "json" {
				return writeJSON(s.out, list)
			}
			printCertificates(s.out, list)
			return nil
		},
	}
	cmd.Flags().VarP(&output, "output", "o", "table or json")
	return cmd
}

func certificates(ctx context.Context, mesh *local.Mesh) ([]certificate, error) {
	st, err := mesh.Status(ctx)
	if err != nil {
		return nil, err
	}
	if !st.Mesh {
		return nil, errors.New("this local mesh was started with --no-mesh: there are no certificates")
	}
	list := []certificate{}
	var errs []error
	for _, n := range st.Nodes {
		dump, err := mesh.Ztunnel(ctx, n.Name, "config_dump")
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: its ztunnel does not answer: %w", n.Name, err))
			continue
		}
		certs, err := parseDump(dump, n.Name, time.Now())
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", n.Name, err))
		}
		for i := range certs {
			certs[i].Pods = podsOf(st.Pods, certs[i])
		}
		list = append(list, certs...)
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
	return list, errors.Join(errs...)
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

func podsOf(pods []control.Pod, c certificate) []string {
	list := []string{}
	for _, p := range pods {
		if p.Node == c.Node && p.Identity == c.Identity {
			list = append(list, p.Namespace+"/"+p.Name)
		}
	}
	return list
}

// parseDump reads the certificates of a ztunnel's config_dump. Tulle's own tells
// more in certificateStatus; a foreign one has only what Istio's has.
func parseDump(data []byte, node string, now time.Time) ([]certificate, error) {
	var dump struct {
		CertificateStatus []struct {
			Identity, State, Serial, LastError string
			NotBefore, NotAfter                time.Time
		} `json:"certificateStatus"`
		Certificates []struct {
			Identity  string `json:"identity"`
			State     string `json:"state"`
			CertChain []struct {
				SerialNumber   string `json:"serialNumber"`
				ValidFrom      string `json:"validFrom"`
				ExpirationTime string `json:"expirationTime"`
			} `json:"certChain"`
		} `json:"certificates"`
	}
	if err := json.Unmarshal(data, &dump); err != nil {
		return nil, fmt.Errorf("config_dump: %w", err)
	}
	var list []certificate
	for _, d := range dump.CertificateStatus {
		list = append(list, certificate{Identity: d.Identity, Node: node, State: d.State, Serial: d.Serial,
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

func printCertificates(w io.Writer, list []certificate) {
	if len(list) == 0 {
		fmt.Fprintln(w, "no certificates: no pod is in the mesh (label its namespace istio.io/dataplane-mode=ambient)")
		return
	}
	rows := [][]string{{"IDENTITY", "NODE", "SERIAL", "NOT BEFORE", "NOT AFTER", "LEFT", "STATE"}}
	for _, c := range list {
		row := []string{c.Identity, c.Node, shorten(c.Serial, 16), moment(c.NotBefore), moment(c.NotAfter), "", c.State}
		switch {
		case c.NotAfter.IsZero():
		case c.LeftSeconds <= 0:
			row[5] = "none"
		default:
			row[5] = words(time.Duration(c.LeftSeconds) * time.Second)
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
