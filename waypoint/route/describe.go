package route

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// PortDescription shows the routes of one port, for operators.
type PortDescription struct {
	Port     uint16             `json:"port"`
	Protocol string             `json:"protocol"`
	Tables   []TableDescription `json:"tables,omitempty"`
}

// TableDescription shows rules that apply together. Clients is the namespace whose
// clients alone they are for, empty for all others'.
type TableDescription struct {
	Clients string            `json:"clients,omitempty"`
	Rules   []RuleDescription `json:"rules"`
}

// RuleDescription shows one rule: each match as its conditions, filters by their kind.
type RuleDescription struct {
	Rule     string   `json:"rule"`
	Matches  []string `json:"matches,omitempty"`
	Backends []string `json:"backends,omitempty"`
	Filters  []string `json:"filters,omitempty"`
	Fault    string   `json:"fault,omitempty"`
}

// Describe returns the routes of all ports, by their numbers.
func (s *Service) Describe() []PortDescription {
	out := make([]PortDescription, 0, len(s.ports))
	for _, p := range s.ports {
		d := PortDescription{Port: p.Number, Protocol: p.Protocol.String()}
		if p.all != nil {
			d.Tables = append(d.Tables, p.all.describe())
		}
		for _, t := range p.clients {
			d.Tables = append(d.Tables, t.describe())
		}
		slices.SortFunc(d.Tables, func(a, b TableDescription) int { return cmp.Compare(a.Clients, b.Clients) })
		out = append(out, d)
	}
	slices.SortFunc(out, func(a, b PortDescription) int { return cmp.Compare(a.Port, b.Port) })
	return out
}

func (t *table) describe() TableDescription {
	out := TableDescription{Clients: t.namespace, Rules: make([]RuleDescription, len(t.rules))}
	for i := range t.rules {
		out.Rules[i] = t.rules[i].describe()
	}
	for i := range t.matches {
		text := strings.Join(t.matches[i].conditions(), ", ")
		if text == "" {
			text = "everything"
		}
		r := &out.Rules[t.ruleOf[i]]
		r.Matches = append(r.Matches, text)
	}
	return out
}

func (r *Rule) describe() RuleDescription {
	out := RuleDescription{Rule: r.Name, Fault: r.Fault, Filters: r.Filters.kinds()}
	for i := range r.Backends {
		b := &r.Backends[i]
		text := fmt.Sprintf("%s:%d", b.Service, b.Port)
		if b.Subset != "" {
			text += " subset " + b.Subset
		}
		if len(r.Backends) > 1 {
			text += fmt.Sprintf(" (weight %d)", b.Weight)
		}
		if b.Fault != "" {
			text += " (500: " + b.Fault + ")"
		}
		out.Backends = append(out.Backends, text)
	}
	return out
}

func (f Filters) kinds() []string {
	var out []string
	for i := range f {
		for kind, there := range map[string]bool{
			"request headers": f[i].RequestHeaders != nil, "response headers": f[i].ResponseHeaders != nil, "redirect": f[i].Redirect != nil,
			"rewrite": f[i].Rewrite != nil, "mirror": f[i].Mirror != nil, "CORS": f[i].CORS != nil,
			"external authorization": f[i].ExternalAuth != nil, "fault": f[i].Fault != nil, "direct response": f[i].Direct != nil,
		} {
			if there {
				out = append(out, kind)
			}
		}
	}
	return out
}
