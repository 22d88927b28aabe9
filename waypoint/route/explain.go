package route

import (
	"fmt"
	"strings"

	"github.com/tulle-mesh/tulle/waypoint/message"
)

// Explanation tells how a decision came about.
type Explanation struct {
	// Decision is "default", "routed" or "not found".
	Decision string `json:"decision"`
	// Clients is the namespace whose clients the table of routes is for; empty for
	// all others', and without a table.
	Clients string `json:"clients,omitempty"`
	// Rule is the text of the deciding rule's Ref.
	Rule string `json:"rule,omitempty"`
	// Fault is why it answers 500.
	Fault string `json:"fault,omitempty"`
	// Considered are the matches in the order of precedence, up to the deciding one.
	Considered []Considered `json:"considered,omitempty"`
	// Rest is how many come after it.
	Rest int `json:"rest,omitempty"`
	// Answer is what the rule itself answers in the place of a backend, such as a
	// redirect, and Status its status, 0 for none of HTTP; empty where backends answer.
	Answer string `json:"answer,omitempty"`
	Status int    `json:"status,omitempty"`
	// Filters are the kinds of what the rule changes or does.
	Filters []string `json:"filters,omitempty"`
	// Authorizers are the external ones that the rule or a backend of it asks.
	Authorizers []string `json:"authorizers,omitempty"`
	// Faults are those on purpose that the request may meet.
	Faults []string `json:"faults,omitempty"`
}

// Considered is one match that was held against a request.
type Considered struct {
	Rule string `json:"rule"`
	// Conditions are all that the match asks; none fits everything.
	Conditions []string `json:"conditions,omitempty"`
	// Failed is the first that did not hold, empty in the deciding match; Got is what
	// there was instead.
	Failed string `json:"failed,omitempty"`
	Got    string `json:"got,omitempty"`
}

// Explain tells how Match decides, by walking all matches in their order.
func (p *Port) Explain(clientNamespace string, r *message.Request) Explanation {
	return p.explain(clientNamespace, r, func(m *match) (failed, got string) { return m.explain(r) })
}

// ExplainConnect tells how Connect decides.
func (p *Port) ExplainConnect(clientNamespace, serverName string) Explanation {
	name := strings.ToLower(serverName)
	return p.explain(clientNamespace, nil, func(m *match) (failed, got string) {
		switch {
		case m.elsewhere:
			return m.portText(), "another"
		case !m.connects():
			return m.ofRequests(), "a connection"
		case !m.servesName(name) || len(m.serverNames) > 0 && name == "":
			return m.serverNameText(), orNone(name, name != "")
		}
		return "", ""
	})
}

func (p *Port) explain(clientNamespace string, r *message.Request, judge func(*match) (failed, got string)) Explanation {
	t := p.tableFor(clientNamespace)
	if t == nil {
		return Explanation{Decision: Default.String()}
	}
	out := Explanation{Decision: NotFound.String(), Clients: t.namespace}
	for i := range t.matches {
		m := &t.matches[i]
		failed, got := judge(m)
		out.Considered = append(out.Considered, Considered{
			Rule:       t.rules[t.ruleOf[i]].Name,
			Conditions: m.conditions(),
			Failed:     failed,
			Got:        got,
		})
		if failed == "" {
			d := t.decision(int32(i))
			out.Decision, out.Rule, out.Fault = d.Kind.String(), d.Rule.Name, d.Fault()
			out.Rest = len(t.matches) - i - 1
			out.tell(d, r, p.Number)
			break
		}
	}
	return out
}

// explain returns the first condition that does not hold, and what there is instead.
func (m *match) explain(r *message.Request) (failed, got string) {
	if m.elsewhere {
		return m.portText(), "another"
	}
	if len(m.serverNames) > 0 {
		return m.serverNameText(), "a request"
	}
	if !m.fitsPath(r.Path) {
		return m.pathText(), r.Path
	}
	if m.method != "" && m.method != r.Method {
		return m.methodText(), r.Method
	}
	for i := range m.headers {
		c := &m.headers[i]
		switch {
		case c.inRequest(r):
		case c.name[0] == ':':
			return "header " + c.String(), orNone(pseudo(r, c.name))
		default:
			return "header " + c.String(), orNone(r.Header.Lookup(c.name))
		}
	}
	for i := range m.query {
		if c := &m.query[i]; !c.inQuery(r.Query) {
			raw, found := firstParameter(r.Query, c.name)
			return "query " + c.String(), orNone(string(appendDecoded(nil, raw)), found)
		}
	}
	return "", ""
}

func orNone(value string, found bool) string {
	if !found {
		return "none"
	}
	return value
}

// conditions returns all that is asked, in the order in which explain looks.
func (m *match) conditions() []string {
	var out []string
	if len(m.ports) > 0 {
		out = append(out, m.portText())
	}
	if len(m.serverNames) > 0 {
		out = append(out, m.serverNameText())
	}
	if m.kind != pathPrefix || m.path != "" {
		out = append(out, m.pathText())
	}
	if m.method != "" {
		out = append(out, m.methodText())
	}
	for i := range m.headers {
		out = append(out, "header "+m.headers[i].String())
	}
	for i := range m.query {
		out = append(out, "query "+m.query[i].String())
	}
	return out
}

func (m *match) pathText() string {
	text := "path under " + m.path
	switch m.kind {
	case pathExact:
		text = "path = " + m.path
	case pathRegex:
		text = "path ~ " + regexText(m.regex)
	case pathText:
		text = "path begins with " + m.path
	}
	if m.folded {
		text += " in any case"
	}
	return text
}

func (m *match) portText() string {
	return "port in " + strings.Trim(fmt.Sprint(m.ports), "[]")
}

// ofRequests returns the first condition that is on requests.
func (m *match) ofRequests() string {
	for _, text := range m.conditions() {
		if !(len(m.ports) > 0 && text == m.portText()) && !(len(m.serverNames) > 0 && text == m.serverNameText()) {
			return text
		}
	}
	return ""
}

func (m *match) methodText() string { return "method = " + m.method }

func (m *match) serverNameText() string {
	return fmt.Sprintf("server name in %s", strings.Join(m.serverNames, ", "))
}
