package authz

import (
	"encoding/json"
	"net/netip"

	api "github.com/tulle-mesh/tulle/api/security"
)

// MarshalJSON writes the policy as Istio's node proxy dumps it: rules are lists
// of clauses, which are lists of matches. It shows what arrived; Warnings, under
// their own key, say which parts were not understood.
func (p *Policy) MarshalJSON() ([]byte, error) {
	d := policyDump{
		Name: p.name, Namespace: p.namespace,
		Scope: p.scope.String(), Action: p.action.String(), DryRun: p.dryRun,
		Rules: make([][][]matchDump, 0, len(p.source.GetRules())), Warnings: p.warnings,
	}
	for _, r := range p.source.GetRules() {
		clauses := make([][]matchDump, 0, len(r.GetClauses()))
		for _, c := range r.GetClauses() {
			matches := make([]matchDump, 0, len(c.GetMatches()))
			for _, m := range c.GetMatches() {
				matches = append(matches, dumpMatch(m))
			}
			clauses = append(clauses, matches)
		}
		d.Rules = append(d.Rules, clauses)
	}
	return json.Marshal(d)
}

type policyDump struct {
	Name      string          `json:"name"`
	Namespace string          `json:"namespace"`
	Scope     string          `json:"scope"`
	Action    string          `json:"action"`
	DryRun    bool            `json:"dryRun,omitempty"`
	Rules     [][][]matchDump `json:"rules"`
	Warnings  []string        `json:"warnings,omitempty"`
}

type matchDump struct {
	Namespaces          []stringDump  `json:"namespaces,omitempty"`
	NotNamespaces       []stringDump  `json:"notNamespaces,omitempty"`
	Principals          []stringDump  `json:"principals,omitempty"`
	NotPrincipals       []stringDump  `json:"notPrincipals,omitempty"`
	SourceIPs           []string      `json:"sourceIps,omitempty"`
	NotSourceIPs        []string      `json:"notSourceIps,omitempty"`
	DestinationIPs      []string      `json:"destinationIps,omitempty"`
	NotDestinationIPs   []string      `json:"notDestinationIps,omitempty"`
	DestinationPorts    []uint32      `json:"destinationPorts,omitempty"`
	NotDestinationPorts []uint32      `json:"notDestinationPorts,omitempty"`
	ServiceAccounts     []accountDump `json:"serviceAccounts,omitempty"`
	NotServiceAccounts  []accountDump `json:"notServiceAccounts,omitempty"`
	Extensions          []string      `json:"extensions,omitempty"`
}

// stringDump has one member set; all nil is a match of a kind not known.
type stringDump struct {
	Exact    *string   `json:"Exact,omitempty"`
	Prefix   *string   `json:"Prefix,omitempty"`
	Suffix   *string   `json:"Suffix,omitempty"`
	Presence *struct{} `json:"Presence,omitempty"`
}

type accountDump struct {
	Namespace      string `json:"namespace"`
	ServiceAccount string `json:"serviceAccount"`
}

func dumpMatch(m *api.Match) matchDump {
	d := matchDump{
		Namespaces: dumpStrings(m.GetNamespaces()), NotNamespaces: dumpStrings(m.GetNotNamespaces()),
		Principals: dumpStrings(m.GetPrincipals()), NotPrincipals: dumpStrings(m.GetNotPrincipals()),
		SourceIPs: dumpIPs(m.GetSourceIps()), NotSourceIPs: dumpIPs(m.GetNotSourceIps()),
		DestinationIPs: dumpIPs(m.GetDestinationIps()), NotDestinationIPs: dumpIPs(m.GetNotDestinationIps()),
		DestinationPorts: m.GetDestinationPorts(), NotDestinationPorts: m.GetNotDestinationPorts(),
		ServiceAccounts: dumpAccounts(m.GetServiceAccounts()), NotServiceAccounts: dumpAccounts(m.GetNotServiceAccounts()),
	}
	for _, e := range m.GetExtensions() {
		d.Extensions = append(d.Extensions, e.GetName())
	}
	return d
}

func dumpStrings(in []*api.StringMatch) []stringDump {
	var out []stringDump
	for _, m := range in {
		var d stringDump
		switch t := m.GetMatchType().(type) {
		case *api.StringMatch_Exact:
			d.Exact = &t.Exact
		case *api.StringMatch_Prefix:
			d.Prefix = &t.Prefix
		case *api.StringMatch_Suffix:
			d.Suffix = &t.Suffix
		case *api.StringMatch_Presence:
			d.Presence = &struct{}{}
		}
		out = append(out, d)
	}
	return out
}

func dumpIPs(in []*api.Address) []string {
	var out []string
	for _, a := range in {
		addr, _ := netip.AddrFromSlice(a.GetAddress())
		out = append(out, netip.PrefixFrom(addr, int(min(a.GetLength(), 128))).String())
	}
	return out
}

func dumpAccounts(in []*api.ServiceAccountMatch) []accountDump {
	var out []accountDump
	for _, m := range in {
		out = append(out, accountDump{m.GetNamespace(), m.GetServiceAccount()})
	}
	return out
}
