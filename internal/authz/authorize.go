package authz

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Attributes is what is known of one connection.
type Attributes struct {
	// Source is the address of the client.
	Source netip.Addr
	// Identity is the client's verified identity, zero when it showed none.
	Identity spiffeid.ID
	// Destination is the application's address and port, never the tunnel's.
	Destination netip.AddrPort
}

// Permit shows that Authorize let a connection pass. Only Authorize makes one
// that is Valid; delivery asks for it so that it cannot forget to ask.
type Permit struct {
	policy string
	valid  bool
}

// Valid reports whether the permit came from Authorize. The zero Permit is not
// valid.
func (p Permit) Valid() bool { return p.valid }

// Policy names the ALLOW policy that matched, "namespace/name". It is empty
// when no ALLOW policy exists.
func (p Permit) Policy() string { return p.policy }

// Denial is the error of a connection that may not pass: we decided so.
type Denial struct {
	// Policy is "namespace/name" of the DENY policy that matched, or of the
	// nearest ALLOW policy, or empty when no policy was at fault.
	Policy string
	// Reason is a sentence for the operator; it names the policy and, when ALLOW
	// policies exist and none matched, the first condition that failed.
	Reason string
	// Incomplete says that the decision had to be taken without a policy that
	// the workload refers to and that has not arrived. New connections are
	// refused; a live one may wait for the policy before it is cut.
	Incomplete bool
}

func (d *Denial) Error() string { return d.Reason }

func (d *Denial) equal(o *Denial) bool { return d == o || d != nil && o != nil && *d == *o }

// DryRun tells what a policy that is not enforced would have done.
type DryRun struct {
	Policy  string
	Action  Action
	Matched bool
	// WouldDeny is true when enforcing the dry-run policies would have denied
	// the connection on account of this one.
	WouldDeny bool
}

// Policies is an immutable set of the policies in force for one workload. The
// zero value is the empty set, which allows everything. It is safe for
// concurrent use.
type Policies struct {
	deny, allow       []*Policy
	dryDeny, dryAllow []*Policy
	// closed denies whatever the policies say.
	closed *Denial
}

// NewPolicies makes a set. Order does not matter, except that the first policy
// that matches is the one named. Repeated policies count once.
func NewPolicies(policies ...*Policy) Policies {
	return Policies{}.With(policies...)
}

// With returns the set with more policies; the receiver stays as it is.
func (s Policies) With(policies ...*Policy) Policies {
	out := Policies{
		deny: clone(s.deny), allow: clone(s.allow),
		dryDeny: clone(s.dryDeny), dryAllow: clone(s.dryAllow),
		closed: s.closed,
	}
	for _, p := range policies {
		switch {
		case p.dryRun && p.denies():
			out.dryDeny = appendNew(out.dryDeny, p)
		case p.dryRun:
			out.dryAllow = appendNew(out.dryAllow, p)
		case p.denies():
			out.deny = appendNew(out.deny, p)
		default:
			out.allow = appendNew(out.allow, p)
		}
	}
	return out
}

// WithMissing returns the set with the knowledge that the policy "namespace/name"
// should be in it and is not known: everything is denied until it is, because
// it might be a DENY policy. The denials are Incomplete.
func (s Policies) WithMissing(name string) Policies {
	s.closed = &Denial{
		Policy:     name,
		Reason:     "policy " + name + " applies to the workload and is not known to this node yet",
		Incomplete: true,
	}
	return s
}

// Closed returns a set that denies everything for the reason.
func Closed(reason string) Policies { return Policies{closed: &Denial{Reason: reason}} }

// Equal reports that both sets hold the same compiled policies, so that a
// decision taken with one stands with the other. It compares pointers and does
// not allocate.
func (s Policies) Equal(o Policies) bool {
	return s.closed.equal(o.closed) && slices.Equal(s.deny, o.deny) && slices.Equal(s.allow, o.allow) &&
		slices.Equal(s.dryDeny, o.dryDeny) && slices.Equal(s.dryAllow, o.dryAllow)
}

// Len returns how many policies are in the set, dry-run ones included.
func (s Policies) Len() int {
	return len(s.deny) + len(s.allow) + len(s.dryDeny) + len(s.dryAllow)
}

// Names returns "namespace/name" of all policies in the set, enforced ones first.
func (s Policies) Names() []string {
	out := make([]string, 0, s.Len())
	for _, list := range [][]*Policy{s.deny, s.allow, s.dryDeny, s.dryAllow} {
		for _, p := range list {
			out = append(out, p.key)
		}
	}
	return out
}

func clone(in []*Policy) []*Policy {
	// Cut to length, so that an append never writes into a shared array.
	return in[:len(in):len(in)]
}

func appendNew(list []*Policy, p *Policy) []*Policy {
	for _, have := range list {
		if have == p {
			return list
		}
	}
	return append(list, p)
}

// Authorize decides. The error is always a *Denial. DryRun holds one entry for
// each dry-run policy in the set and is nil when there are none, whatever the
// outcome. It does not allocate when the connection is permitted or a DENY
// policy matches, unless there are dry-run policies.
func (s Policies) Authorize(a Attributes) (Permit, []DryRun, error) {
	in, denial := prepare(a)
	if denial != nil {
		return Permit{}, nil, denial
	}
	permit, denial := s.enforce(&in)
	var dry []DryRun
	if len(s.dryDeny)+len(s.dryAllow) > 0 {
		dry = s.rehearse(&in, permit)
	}
	if denial != nil {
		return Permit{}, dry, denial
	}
	return permit, dry, nil
}

func (s Policies) enforce(in *input) (Permit, *Denial) {
	for _, p := range s.deny {
		if p.matches(in) {
			return Permit{}, p.denial
		}
	}
	if s.closed != nil {
		return Permit{}, s.closed
	}
	if len(s.allow) == 0 {
		return Permit{valid: true}, nil
	}
	for _, p := range s.allow {
		if p.matches(in) {
			return Permit{valid: true, policy: p.key}, nil
		}
	}
	return Permit{}, explain(s.allow, in)
}

// rehearse evaluates the dry-run policies as if they were enforced beside the
// others.
func (s Policies) rehearse(in *input, permit Permit) []DryRun {
	out := make([]DryRun, 0, len(s.dryDeny)+len(s.dryAllow))
	for _, p := range s.dryDeny {
		m := p.matches(in)
		out = append(out, DryRun{Policy: p.key, Action: p.action, Matched: m, WouldDeny: m})
	}
	// An enforced ALLOW that matched goes on allowing.
	allowed := permit.valid && permit.policy != ""
	first := len(out)
	for _, p := range s.dryAllow {
		m := p.matches(in)
		allowed = allowed || m
		out = append(out, DryRun{Policy: p.key, Action: p.action, Matched: m})
	}
	for i := first; i < len(out); i++ {
		out[i].WouldDeny = !allowed
	}
	return out
}

// input is Attributes prepared for matching, once per decision.
type input struct {
	source, destination netip.Addr
	port                uint16
	hasIdentity         bool
	// principal is the identity without spiffe://.
	principal, namespace, account string
}

var (
	denySource      = &Denial{Reason: "the connection has no source address"}
	denyDestination = &Denial{Reason: "the connection has no destination address and port"}
	denyIdentity    = &Denial{Reason: "the client's identity is not of the form spiffe://<trust domain>/ns/<namespace>/sa/<account>"}
)

func prepare(a Attributes) (input, *Denial) {
	in := input{
		source:      a.Source.Unmap().WithZone(""),
		destination: a.Destination.Addr().Unmap().WithZone(""),
		port:        a.Destination.Port(),
	}
	if !in.source.IsValid() {
		return in, denySource
	}
	if !in.destination.IsValid() || in.port == 0 {
		return in, denyDestination
	}
	if a.Identity.IsZero() {
		return in, nil
	}
	in.hasIdentity = true
	in.principal = strings.TrimPrefix(a.Identity.String(), "spiffe://")
	rest, ok := strings.CutPrefix(a.Identity.Path(), "/ns/")
	if !ok {
		return in, denyIdentity
	}
	in.namespace, rest, ok = strings.Cut(rest, "/sa/")
	if !ok || in.namespace == "" || rest == "" || strings.Contains(in.namespace, "/") || strings.Contains(rest, "/") {
		return in, denyIdentity
	}
	in.account = rest
	return in, nil
}
