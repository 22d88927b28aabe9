package ratelimit

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	api "github.com/tulle-mesh/tulle/api/waypoint"
	"github.com/tulle-mesh/tulle/waypoint/route"
)

// Policy is a compiled RateLimit. It is immutable; the Limiter that made it counts.
type Policy struct {
	name     string // "namespace/name"
	source   *api.RateLimit
	rules    []*rule
	failOpen bool
	timeout  time.Duration
	// fault is why nothing of it can be counted.
	fault error
	// remote counts the rules that are not counted here; nil for leases.
	remote  remote
	release func()
}

// Name returns "namespace/name".
func (p *Policy) Name() string { return p.name }

// Fault returns why nothing can be counted by the policy, nil when all is well.
func (p *Policy) Fault() error { return p.fault }

// rule is one rule of a policy.
type rule struct {
	policy *Policy
	name   string
	source *api.RateLimitRule
	match  []match
	parts  []part
	shadow bool
	local  bool
	cost   cost
	*Counter
	metrics decisions
}

type match struct {
	request               *route.Matcher // nil asks nothing of the request
	methods               []string
	principals, namespace []string
}

type cost struct {
	requestHeader, responseHeader string
	otherwise                     uint64
}

type partKind uint8

const (
	byIdentity partKind = iota
	byServiceAccount
	byNamespace
	byHeader
	byPath
	byMethod
	byHost
	byQuery
	bySourceIP
	byClaim
)

func (k partKind) String() string {
	return [...]string{"identity", "serviceAccount", "namespace", "header", "path", "method", "host", "query", "sourceIP", "jwtClaim"}[k]
}

// part is one part of a key.
type part struct {
	kind       partKind
	name       string
	claim      []string
	otherwise  string
	hasDefault bool
}

// label is the part's name in descriptors and listings.
func (p *part) label() string {
	if p.name == "" {
		return p.kind.String()
	}
	return p.kind.String() + ":" + p.name
}

// Compile makes a policy of what the control plane sent. Rules of old that count the
// same way go on with what they have counted; old may be nil and is not to be used for
// new requests afterwards. What cannot be counted is Fault's, and never an error.
func (l *Limiter) Compile(in *api.RateLimit, old *Policy) *Policy {
	p := &Policy{
		name: in.GetNamespace() + "/" + in.GetName(), source: in, failOpen: in.GetFailOpen(), timeout: defaultTimeout, release: func() {},
	}
	if d := in.GetTimeout(); d != nil && d.AsDuration() > 0 {
		p.timeout = d.AsDuration()
	}
	p.fault = l.compile(p, in, old)
	l.mu.Lock()
	l.policies[p.name] = p
	l.mu.Unlock()
	return p
}

func (l *Limiter) compile(p *Policy, in *api.RateLimit, old *Policy) error {
	if in.GetFault() != "" {
		return errors.New(in.GetFault())
	}
	if unknown(in) {
		return errors.New("it says more than this waypoint knows")
	}
	finest, units := time.Nanosecond, uint64(maxUnits)
	remotely := false
	switch b := in.GetBackend().GetKind().(type) {
	case nil, *api.RateLimitBackend_Leases:
	case *api.RateLimitBackend_Redis:
		remotely, finest, units = true, time.Microsecond, maxRemoteUnits
		r, release := l.redis(in.GetNamespace(), b.Redis)
		p.remote, p.release = r, release
	case *api.RateLimitBackend_Rls:
		if b.Rls.GetBackend().GetFault() != "" {
			return errors.New(b.Rls.GetBackend().GetFault())
		}
		remotely = true
		r, release, err := l.service(b.Rls)
		if err != nil {
			return err
		}
		p.remote, p.release = r, release
	default:
		return errors.New("a backend that this waypoint does not know")
	}
	for i, source := range in.GetRules() {
		r := &rule{policy: p, name: source.GetName(), source: source, shadow: source.GetShadow() || in.GetShadow(), local: source.GetLocal()}
		if r.name == "" {
			r.name = strconv.Itoa(i)
		}
		if unknown(source) {
			return fmt.Errorf("rule %s says more than this waypoint knows", r.name)
		}
		if err := r.compile(source); err != nil {
			return fmt.Errorf("rule %s: %w", r.name, err)
		}
		if r.local || !remotely {
			r.Counter = l.counter(p, r, old, time.Nanosecond, maxUnits)
		} else {
			r.Counter = l.counter(p, r, old, finest, units)
		}
		r.metrics = l.decisions(p.name, r.name)
		p.rules = append(p.rules, r)
	}
	return nil
}

func unknown(m proto.Message) bool { return len(m.ProtoReflect().GetUnknown()) > 0 }

func (r *rule) compile(in *api.RateLimitRule) error {
	for _, m := range in.GetMatch() {
		out := match{methods: m.GetMethods(), principals: m.GetPrincipals(), namespace: m.GetNamespaces()}
		if unknown(m) {
			return errors.New("a condition that this waypoint does not know")
		}
		if m.GetPath() != nil || len(m.GetHeaders())+len(m.GetQuery()) > 0 {
			var err error
			if out.request, err = route.NewMatcher(&api.Match{Path: m.GetPath(), Headers: m.GetHeaders(), Query: m.GetQuery()}); err != nil {
				return err
			}
		}
		r.match = append(r.match, out)
	}
	for _, k := range in.GetKey() {
		p := part{otherwise: k.GetDefault(), hasDefault: k.GetHasDefault()}
		switch kind := k.GetKind().(type) {
		case *api.RateLimitKey_Identity:
			p.kind = byIdentity
		case *api.RateLimitKey_ServiceAccount:
			p.kind = byServiceAccount
		case *api.RateLimitKey_Namespace:
			p.kind = byNamespace
		case *api.RateLimitKey_Header:
			p.kind, p.name = byHeader, strings.ToLower(kind.Header)
		case *api.RateLimitKey_Path:
			p.kind = byPath
		case *api.RateLimitKey_Method:
			p.kind = byMethod
		case *api.RateLimitKey_Host:
			p.kind = byHost
		case *api.RateLimitKey_Query:
			p.kind, p.name = byQuery, kind.Query
		case *api.RateLimitKey_SourceIp:
			p.kind = bySourceIP
		case *api.RateLimitKey_JwtClaim:
			p.kind, p.name, p.claim = byClaim, kind.JwtClaim, strings.Split(kind.JwtClaim, ".")
		default:
			return errors.New("a key that this waypoint does not know")
		}
		r.parts = append(r.parts, p)
	}
	switch n := len(in.GetLimits()); {
	case n == 0:
		return errors.New("it has no limits")
	case n > maxAmounts:
		return fmt.Errorf("it has %d limits, of %d that are allowed", n, maxAmounts)
	}
	for _, a := range in.GetLimits() {
		if per := a.GetUnit().AsDuration(); a.GetRequests() == 0 || a.GetRequests() > maxCost || a.GetBurst() > maxCost || per <= 0 || per > 24*time.Hour {
			return fmt.Errorf("%d requests (burst %d) per %v is no limit", a.GetRequests(), a.GetBurst(), per)
		}
	}
	r.cost = cost{
		requestHeader: strings.ToLower(in.GetCost().GetRequestHeader()), responseHeader: strings.ToLower(in.GetCost().GetResponseHeader()),
		otherwise: max(in.GetCost().GetDefault(), 1),
	}
	return nil
}

// counter returns the old rule's when that counts the same.
func (l *Limiter) counter(p *Policy, r *rule, old *Policy, finest time.Duration, units uint64) *Counter {
	leased := !r.local && p.remote == nil
	if old != nil {
		for _, was := range old.rules {
			if was.name == r.name && was.leased == leased && (was.policy.remote != nil && !was.local) == (p.remote != nil && !r.local) && sameCount(was.source, r.source) {
				return was.Counter
			}
		}
	}
	c := &Counter{name: p.name + "/" + r.name, number: l.numbers.Add(1), leased: leased}
	for _, a := range r.source.GetLimits() {
		burst := a.GetBurst()
		if burst == 0 {
			burst = a.GetRequests()
		}
		c.amounts = append(c.amounts, newAmount(a.GetRequests(), a.GetUnit().AsDuration(), burst, finest, units))
	}
	c.prefix = binary.BigEndian.AppendUint32(nil, c.number)
	c.parts = r.parts
	c.share.rest.Store(fullShare)
	if leased {
		l.leases.add(c)
	}
	return c
}

func sameCount(a, b *api.RateLimitRule) bool {
	return proto.Equal(&api.RateLimitRule{Key: a.GetKey(), Limits: a.GetLimits()}, &api.RateLimitRule{Key: b.GetKey(), Limits: b.GetLimits()})
}

// Retire ends a policy: what it counted is forgotten, but for rules that next goes on
// with, which is nil when there is none.
func (l *Limiter) Retire(p, next *Policy) {
	if p == nil {
		return
	}
	l.mu.Lock()
	if l.policies[p.name] == p {
		delete(l.policies, p.name)
	}
	l.mu.Unlock()
	for _, r := range p.rules {
		kept := false
		if next != nil {
			for _, n := range next.rules {
				kept = kept || n.Counter == r.Counter
			}
		}
		if !kept {
			l.leases.remove(r.Counter)
			l.keys.forget(r.Counter)
		}
	}
	p.release()
}
