package jwt

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"google.golang.org/protobuf/proto"

	api "github.com/tulle-mesh/tulle/api/waypoint"
	"github.com/tulle-mesh/tulle/waypoint/message"
)

// Authentication is one compiled resource. It is safe for concurrent use.
type Authentication struct {
	key      string
	rules    []*rule
	warnings []string
	// closed says why no request may pass.
	closed string

	keys *Keys
	once sync.Once
}

// Key returns "namespace/name".
func (a *Authentication) Key() string { return a.key }

// Warnings says which rules cannot check tokens and why; tokens of their issuers are
// refused.
func (a *Authentication) Warnings() []string { return a.warnings }

// Close ends the fetching of keys that no other resource needs. Checkers that have it
// go on with the keys that there are.
func (a *Authentication) Close() {
	a.once.Do(func() {
		for _, r := range a.rules {
			if r.source != nil {
				a.keys.release(r.source)
			}
		}
	})
}

// rule accepts the tokens of one issuer.
type rule struct {
	issuer    string
	audiences []string
	// static are keys that came with the rule, source those that are fetched.
	static *keySet
	source *source
	tokens *cache
	places []place
	spaced []string

	forward bool
	payload string // name of a header field
	claims  []claimField
	fault   string
}

// claimField is a header field that gets a claim.
type claimField struct{ field, claim string }

// Compile compiles a resource and starts fetching the keys that it needs; it must be
// closed. Errors are only for resources that cannot be named: a rule that is not
// understood refuses the tokens of its issuer, and a resource beyond the limits all
// requests.
func (k *Keys) Compile(in *api.Authentication) (*Authentication, error) {
	if in.GetName() == "" || in.GetNamespace() == "" || len(in.GetName())+len(in.GetNamespace()) > maxNameBytes {
		return nil, fmt.Errorf("authentication %q in namespace %q: has no proper name", in.GetName(), in.GetNamespace())
	}
	a := &Authentication{key: in.GetNamespace() + "/" + in.GetName(), keys: k}
	if len(in.GetRules()) > maxRules {
		a.closed = fmt.Sprintf("authentication %s has more than %d rules", a.key, maxRules)
		a.warnings = append(a.warnings, a.closed)
		return a, nil
	}
	for i, r := range in.GetRules() {
		compiled := k.rule(r)
		if hasUnknown(in) {
			compiled.doubt("the resource has fields that this proxy does not know")
		}
		if compiled.fault == "" {
			compiled.seek(k, r)
		}
		if compiled.fault != "" {
			a.warnings = append(a.warnings, fmt.Sprintf("rules[%d]: %s", i, compiled.fault))
		}
		a.rules = append(a.rules, compiled)
	}
	return a, nil
}

// doubt keeps the first fault.
func (r *rule) doubt(format string, args ...any) {
	if r.fault == "" {
		r.fault = fmt.Sprintf(format, args...)
	}
}

func (k *Keys) rule(in *api.TokenRule) *rule {
	r := &rule{
		issuer: in.GetIssuer(), audiences: in.GetAudiences(), tokens: k.tokens,
		forward: in.GetForwardOriginalToken(), payload: strings.ToLower(in.GetOutputPayloadToHeader()),
		spaced: append([]string{"scope", "permission"}, in.GetSpaceDelimitedClaims()...),
		fault:  in.GetFault(),
	}
	if hasUnknown(in) {
		r.doubt("has fields that this proxy does not know")
	}
	if r.issuer == "" {
		r.doubt("has no issuer")
	}
	if r.payload != "" {
		r.checkField(r.payload)
	}
	if n := max(len(in.GetFromHeaders()), len(in.GetFromParams()), len(in.GetFromCookies()),
		len(in.GetOutputClaimToHeaders()), len(in.GetAudiences()), len(in.GetSpaceDelimitedClaims())); n > maxPlaces {
		r.doubt("has lists of more than %d entries", maxPlaces)
		r.places = defaultPlaces
		return r
	}
	for _, c := range in.GetOutputClaimToHeaders() {
		f := claimField{strings.ToLower(c.GetHeader()), c.GetClaim()}
		r.checkField(f.field)
		if f.claim == "" || hasUnknown(c) {
			r.doubt("has a header field for a claim that is not named")
		}
		r.claims = append(r.claims, f)
	}
	for _, h := range in.GetFromHeaders() {
		p := place{kind: inHeader, name: strings.ToLower(h.GetName()), prefix: h.GetPrefix()}
		r.checkField(p.name)
		if len(p.prefix) > maxNameBytes || hasUnknown(h) {
			r.doubt("has a place for tokens that is not understood")
		}
		r.places = append(r.places, p)
	}
	for _, name := range in.GetFromParams() {
		r.named(place{kind: inQuery, name: name})
	}
	for _, name := range in.GetFromCookies() {
		r.named(place{kind: inCookie, name: name})
	}
	if len(r.places) == 0 {
		r.places = defaultPlaces
	}
	return r
}

func (r *rule) named(p place) {
	if p.name == "" || len(p.name) > maxNameBytes {
		r.doubt("has a place for tokens without a proper name")
	}
	r.places = append(r.places, p)
}

func (r *rule) checkField(name string) {
	if !message.ValidName(name) || message.Reserved(name) || len(name) > maxNameBytes {
		r.doubt("%q is not the name of a header field for tokens or claims", name)
	}
}

// seek finds where the keys come from.
func (r *rule) seek(k *Keys, in *api.TokenRule) {
	at := sourceKey{timeout: defaultTimeout}
	if t := in.GetTimeout().AsDuration(); t > 0 {
		at.timeout = min(t, maxTimeout)
	}
	switch {
	case in.GetJwks() != "":
		var err error
		if r.static, err = parseKeySet([]byte(in.GetJwks())); err != nil {
			r.doubt("%v", err)
		}
		return
	case in.GetJwksUri() != "":
		at.url = in.GetJwksUri()
		if !fetchable(at.url) {
			r.doubt("jwksUri is not a URL of https or http")
			return
		}
	default:
		at.issuer = r.issuer
		if !fetchable(at.issuer) {
			r.doubt("has no keys, and the issuer is not a URL at which they could be asked for")
			return
		}
	}
	r.source = k.acquire(at)
}

func fetchable(s string) bool {
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "https" || u.Scheme == "http") && u.Host != "" && u.User == nil && len(s) <= 2048
}

func (r *rule) current(now time.Time) *keySet {
	if r.source != nil {
		return r.source.current(now)
	}
	return r.static
}

// verify holds a token to the rule. It waits for keys at most as long as the rule's
// timeout.
func (r *rule) verify(ctx context.Context, text string, sig *jose.JSONWebSignature) (*Token, *Refusal) {
	if r.fault != "" {
		return nil, refuse("the rule of issuer %s cannot check tokens: %s", r.issuer, r.fault)
	}
	keys := r.current(time.Now())
	if keys == nil && r.source != nil {
		keys = r.source.renew(ctx, nil)
	}
	if keys == nil {
		return nil, refuse("the keys of issuer %s are not available", r.issuer)
	}
	payload, err := keys.verify(sig)
	if err == errKey && r.source != nil {
		if newer := r.source.renew(ctx, keys); newer != nil {
			keys = newer
			payload, err = keys.verify(sig)
		}
	}
	if err != nil {
		return nil, refuse("issuer %s: %v", r.issuer, err)
	}
	t, err := parseToken(payload, r.spaced)
	switch {
	case err != nil:
		return nil, refuse("issuer %s: %v", r.issuer, err)
	case t.Issuer() != r.issuer:
		return nil, refuse("the token is of another issuer than %s", r.issuer)
	case !r.wanted(t):
		return nil, refuse("issuer %s: the token is for another audience", r.issuer)
	}
	if refusal := t.check(time.Now()); refusal != nil {
		return nil, refusal
	}
	_, rest, _ := strings.Cut(text, ".")
	t.payload, _, _ = strings.Cut(rest, ".")
	r.tokens.put(cacheKey{text, r, keys}, t)
	return t, nil
}

// wanted reports whether the token is for one of the audiences, compared as they are.
func (r *rule) wanted(t *Token) bool {
	if len(r.audiences) == 0 {
		return true
	}
	n := t.claims["aud"]
	return n != nil && slices.ContainsFunc(n.claim.Strings, func(a string) bool { return slices.Contains(r.audiences, a) })
}

// write puts what the rule promises into the request. Claims that are no scalar, or
// have characters that header fields cannot have, are left out.
func (r *rule) write(req *message.Request, t *Token) {
	if r.payload != "" {
		req.Header.Set(r.payload, t.payload)
	}
	for _, c := range r.claims {
		if n := t.named(c.claim); n != nil && n.has && message.ValidValue(n.scalar) {
			req.Header.Set(c.field, n.scalar)
		}
	}
}

// hasUnknown reports fields on the wire that the generated code does not know.
func hasUnknown(m proto.Message) bool {
	r := m.ProtoReflect()
	return r.IsValid() && len(r.GetUnknown()) > 0
}
