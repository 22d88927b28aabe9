package request

import (
	"slices"
	"strings"

	api "github.com/tulle-mesh/tulle/api/waypoint"
)

// Permit shows that Authorize let a request pass. Only Authorize makes one that is
// Valid; forwarding asks for it so that it cannot forget to ask.
type Permit struct {
	policy string
	valid  bool
}

// Valid reports whether the permit came from Authorize. The zero Permit is not
// valid.
func (p Permit) Valid() bool { return p.valid }

// Policy names the ALLOW policy that fitted, "namespace/name". It is empty when no
// ALLOW policy exists.
func (p Permit) Policy() string { return p.policy }

// Denial is the error of a request that may not pass: we decided so. What the client
// gets to see is 403 and no reason.
type Denial struct {
	// Policy is "namespace/name" of the CUSTOM or DENY policy that fitted, or of the
	// nearest ALLOW policy, or empty when no policy was at fault.
	Policy string
	// Reason is a sentence for the operator; it names the policy and, when ALLOW
	// policies exist and none fitted, the first condition that failed.
	Reason string
	// Incomplete says that the decision had to be taken without a policy that the
	// service refers to and that has not arrived.
	Incomplete bool
}

func (d *Denial) Error() string { return d.Reason }

func (d *Denial) equal(o *Denial) bool { return d == o || d != nil && o != nil && *d == *o }

// Observation tells what a policy that is not enforced makes of a request.
type Observation struct {
	// Policy is "namespace/name".
	Policy string
	Action Action
	// DryRun tells a rehearsed policy from an AUDIT one.
	DryRun bool
	// Matched is true for every AUDIT policy that is told of.
	Matched bool
	// WouldDeny is true when enforcing the dry-run policies would have denied the
	// request on account of this one. A CUSTOM policy asks nobody in rehearsal, so
	// nobody knows of it.
	WouldDeny bool
}

// Policies is an immutable set of the policies in force for one service. The zero
// value is the empty set, which allows everything. It is safe for concurrent use.
type Policies struct {
	custom, deny, allow []*Policy
	audit               []*Policy
	// dry holds those that are not enforced, CUSTOM before DENY before ALLOW.
	dry []*Policy
	// unfit are all ALLOW policies where For left some out: they still ask for one that
	// fits, and explain why none does.
	unfit []*Policy
	// closed denies whatever the policies say.
	closed *Denial
}

// NewPolicies makes a set. Order does not matter, except that the first policy that
// fits is the one named. Repeated policies count once.
func NewPolicies(policies ...*Policy) Policies { return Policies{}.With(policies...) }

// With returns the set with more policies; the receiver stays as it is.
func (s Policies) With(policies ...*Policy) Policies {
	out := Policies{
		custom: clip(s.custom), deny: clip(s.deny), allow: clip(s.allow),
		audit: clip(s.audit), dry: clip(s.dry), unfit: clip(s.unfit), closed: s.closed,
	}
	for _, p := range policies {
		list := &out.deny
		switch {
		case p.dryRun:
			list = &out.dry
		case p.action == Custom:
			list = &out.custom
		case p.action == Allow:
			list = &out.allow
			if len(out.unfit) > 0 && !slices.Contains(out.unfit, p) {
				out.unfit = append(out.unfit, p)
			}
		case p.action == Audit:
			list = &out.audit
		}
		if !slices.Contains(*list, p) {
			*list = append(*list, p)
		}
	}
	if len(out.dry) > 1 {
		out.dry = slices.Clone(out.dry)
		slices.SortStableFunc(out.dry, func(a, b *Policy) int { return rank(a.action) - rank(b.action) })
	}
	return out
}

// rank is the place of an action in the order of evaluation.
func rank(a Action) int {
	switch a {
	case Custom:
		return 0
	case Allow:
		return 2
	case Audit:
		return 3
	default:
		return 1
	}
}

// clip cuts to length, so that an append never writes into a shared array.
func clip(in []*Policy) []*Policy { return in[:len(in):len(in)] }

// WithMissing returns the set with the knowledge that the policy "namespace/name"
// should be in it and is not known: everything is denied until it is, because it
// might be a DENY policy. The denials are Incomplete.
func (s Policies) WithMissing(name string) Policies {
	s.closed = &Denial{
		Policy:     name,
		Reason:     "policy " + name + " applies to the service and is not known to this waypoint yet",
		Incomplete: true,
	}
	return s
}

// Closed returns a set that denies everything for the reason.
func Closed(reason string) Policies { return Policies{closed: &Denial{Reason: reason}} }

// Equal reports that both sets hold the same compiled policies. It compares pointers
// and does not allocate.
func (s Policies) Equal(o Policies) bool {
	return s.closed.equal(o.closed) && slices.Equal(s.custom, o.custom) && slices.Equal(s.deny, o.deny) &&
		slices.Equal(s.allow, o.allow) && slices.Equal(s.audit, o.audit) && slices.Equal(s.dry, o.dry) && slices.Equal(s.unfit, o.unfit)
}

// Len returns how many policies are in the set, those that are not enforced
// included.
func (s Policies) Len() int {
	return len(s.custom) + len(s.deny) + len(s.allow) + len(s.audit) + len(s.dry)
}

// All returns the policies in the order in which Authorize asks them.
func (s Policies) All() []*Policy {
	return slices.Concat(s.custom, s.deny, s.allow, s.audit, s.dry)
}

// Ask is one question to an external authorizer.
type Ask struct {
	// Policy is "namespace/name" of the first CUSTOM policy that wants it.
	Policy string
	// Provider is its name.
	Provider string
	// Auth says how to reach it. It is nil for a provider that is not known, which
	// nobody can ask, so that the request will be denied.
	Auth *api.ExternalAuth
}

// String says who asks whom.
func (a Ask) String() string {
	return "provider " + a.Provider + ", which policy " + a.Policy + " asks"
}

// Consent collects the answers of external authorizers for one request. The zero
// value is that of a set without CUSTOM policies; for others Authorize denies with
// it. One goroutine may use it.
type Consent struct {
	of     []*Policy
	asks   []Ask
	agreed []bool
}

// Asks returns who must be asked, once per provider. It is empty for most requests.
func (c *Consent) Asks() []Ask { return c.asks }

// Agree says that the authorizer of ask number i let the request pass.
func (c *Consent) Agree(i int) { c.agreed[i] = c.asks[i].Auth != nil }

// Consult returns the consent to be had before the request may pass. It must see the
// request as the client sent it, before its token is looked at: conditions on the
// token therefore count as holding. It does not allocate unless a policy fits.
func (s Policies) Consult(a *Attributes) Consent {
	if len(s.custom) == 0 {
		return Consent{}
	}
	out := Consent{of: s.custom}
	in, denial := prepare(a)
	if denial != nil {
		// Authorize will say so.
		return out
	}
	in.unchecked = true
	for {
		for _, p := range s.custom {
			if p.matches(&in) {
				out.add(p)
			}
		}
		if !in.refold() {
			return out
		}
	}
}

func (c *Consent) add(p *Policy) {
	ask := Ask{Policy: p.key, Provider: p.source.GetProvider(), Auth: p.source.GetExternalAuth()}
	for _, have := range c.asks {
		if have.Provider == ask.Provider && (have.Auth == nil) == (ask.Auth == nil) {
			return
		}
	}
	c.asks, c.agreed = append(c.asks, ask), append(c.agreed, false)
}

// AgreeAll says that every authorizer let the request pass, and returns those that could
// have been asked. It is for explanations, where nobody is asked: what is permitted then
// is up to them.
func (c *Consent) AgreeAll() []Ask {
	var out []Ask
	for i := range c.asks {
		if c.Agree(i); c.agreed[i] {
			out = append(out, c.asks[i])
		}
	}
	return out
}

// Undecided names authorizers that AgreeAll returned as those who decide.
func Undecided(asks []Ask) string {
	names := make([]string, len(asks))
	for i := range asks {
		names[i] = asks[i].String()
	}
	if len(asks) == 1 {
		return names[0] + ", decides, and is not asked here"
	}
	return strings.Join(names, "; ") + ": they decide, and are not asked here"
}

// check returns the denial of the first authorizer that did not agree.
func (c *Consent) check(custom []*Policy) *Denial {
	if len(custom) == 0 {
		return nil
	}
	if !slices.Equal(c.of, custom) {
		return &Denial{
			Policy: custom[0].key,
			Reason: "the authorizers that policy " + custom[0].key + " and others want were not consulted",
		}
	}
	for i, ask := range c.asks {
		switch {
		case c.agreed[i]:
		case ask.Auth == nil:
			return &Denial{Policy: ask.Policy, Reason: "policy " + ask.Policy + " asks provider " + ask.Provider + ", which is not known"}
		default:
			return &Denial{Policy: ask.Policy, Reason: ask.String() + ", did not agree"}
		}
	}
	return nil
}

// Authorize decides. The error is always a *Denial. Observations hold one entry for
// each AUDIT policy that fits and for each dry-run policy, whatever the outcome, and
// are nil without. It does not allocate when the request is permitted or a DENY
// policy fits, unless there is something to observe or a header field that a policy
// names has several lines.
func (s Policies) Authorize(a *Attributes, consent Consent) (Permit, []Observation, error) {
	in, denial := prepare(a)
	if denial != nil {
		return Permit{}, nil, denial
	}
	permit, denial := s.enforce(&in, &consent)
	var seen []Observation
	if len(s.audit)+len(s.dry) > 0 {
		seen = s.observe(a, permit)
	}
	if denial != nil {
		return Permit{}, seen, denial
	}
	return permit, seen, nil
}

// enforce judges both forms of the path; the permit names what fitted the first.
func (s *Policies) enforce(in *input, consent *Consent) (Permit, *Denial) {
	if denial := consent.check(s.custom); denial != nil {
		return Permit{}, denial
	}
	permit, denial := s.judge(in)
	if denial == nil && in.refold() {
		_, denial = s.judge(in)
	}
	if denial != nil {
		return Permit{}, denial
	}
	return permit, nil
}

func (s *Policies) judge(in *input) (Permit, *Denial) {
	for _, p := range s.deny {
		if p.matches(in) {
			return Permit{}, p.denial
		}
	}
	if s.closed != nil {
		return Permit{}, s.closed
	}
	if len(s.allow) == 0 && len(s.unfit) == 0 {
		return Permit{valid: true}, nil
	}
	for _, p := range s.allow {
		if p.matches(in) {
			return Permit{valid: true, policy: p.key}, nil
		}
	}
	all := s.unfit
	if len(all) == 0 {
		all = s.allow
	}
	return Permit{}, explain(all, in)
}

// fits reports whether a policy fits a request with both forms of its path: with one
// of them if it restricts, with each if it allows.
func (p *Policy) fits(a *Attributes) bool {
	in, denial := prepare(a)
	if denial != nil {
		return p.restricts()
	}
	in.unchecked = p.action == Custom
	fits := p.matches(&in)
	if fits != p.restricts() && in.refold() {
		return p.matches(&in)
	}
	return fits
}

// observe evaluates the policies that are not enforced; dry-run ones as if they were
// enforced beside the others.
func (s *Policies) observe(a *Attributes, permit Permit) []Observation {
	var out []Observation
	for _, p := range s.audit {
		if p.fits(a) {
			out = append(out, Observation{Policy: p.key, Action: Audit, Matched: true})
		}
	}
	// An enforced ALLOW that fitted goes on allowing.
	allowed := permit.valid && permit.policy != ""
	first := len(out)
	for _, p := range s.dry {
		m := p.fits(a)
		allowed = allowed || m && p.action == Allow
		out = append(out, Observation{
			Policy: p.key, Action: p.action, DryRun: true, Matched: m,
			WouldDeny: m && (p.action == Deny || p.action == Unknown),
		})
	}
	for i := first; i < len(out); i++ {
		if out[i].Action == Allow {
			out[i].WouldDeny = !allowed
		}
	}
	return out
}
