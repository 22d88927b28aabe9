package jwt

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/tulle-mesh/tulle/waypoint/message"
)

// Checker holds the rules that apply to one service. It is immutable and safe for
// concurrent use. One without rules finds no tokens.
type Checker struct {
	spots []spot
	// clear are the header fields that only the rules may write.
	clear  []string
	closed *Refusal
}

// spot is a place with the rules that look there.
type spot struct {
	place
	rules []*rule
}

// NewChecker returns the rules of all resources together.
func NewChecker(all ...*Authentication) *Checker {
	c := &Checker{}
	for _, a := range all {
		if a.closed != "" {
			c.closed = &Refusal{Status: 503, Reason: a.closed}
		}
		for _, r := range a.rules {
			for _, p := range r.places {
				i := slices.IndexFunc(c.spots, func(s spot) bool { return s.place == p })
				if i < 0 {
					i = len(c.spots)
					c.spots = append(c.spots, spot{place: p})
				}
				c.spots[i].rules = append(c.spots[i].rules, r)
			}
			if r.payload != "" {
				c.clear = append(c.clear, r.payload)
			}
			for _, f := range r.claims {
				c.clear = append(c.clear, f.field)
			}
		}
	}
	slices.Sort(c.clear)
	c.clear = slices.Compact(c.clear)
	return c
}

// WithMissing returns the checker with the knowledge that the resource
// "namespace/name" should be in it and is not known: everything is refused until it
// is, because its fields could not be kept from being forged.
func (c *Checker) WithMissing(name string) *Checker {
	out := *c
	out.closed = &Refusal{Status: 503, Reason: "authentication " + name + " applies to the service and is not known to this waypoint yet"}
	return &out
}

// Empty reports that Check has nothing to do.
func (c *Checker) Empty() bool { return len(c.spots) == 0 && len(c.clear) == 0 && c.closed == nil }

// found is a token in a request.
type found struct {
	spot *spot
	text string
}

// Check looks for a token, verifies it, takes it out of the request and puts in what
// the rules say. The token is nil when there is none. The error is always a *Refusal.
// It may wait for an issuer's keys, as long as the rule's timeout or until ctx ends.
func (c *Checker) Check(ctx context.Context, r *message.Request) (*Token, error) {
	if c.closed != nil {
		return nil, c.closed
	}
	var buffer [maxTokens]found
	tokens, refusal := c.find(r, buffer[:0])
	for _, name := range c.clear {
		r.Header.DelAlike(name)
	}
	if refusal != nil {
		return nil, refusal
	}
	if len(tokens) == 0 {
		return nil, nil
	}
	var token *Token
	var rules [maxTokens]*rule
	for i, f := range tokens {
		t, by, refusal := f.spot.accept(ctx, f.text)
		if refusal != nil {
			return nil, refusal
		}
		if token == nil {
			token = t
		}
		rules[i] = by
	}
	for i, f := range tokens {
		if !rules[i].forward {
			f.spot.remove(r)
		}
	}
	for i := range tokens {
		rules[i].write(r, token)
	}
	return token, nil
}

// find appends the tokens of the request, one per place; they are equal.
func (c *Checker) find(r *message.Request, out []found) ([]found, *Refusal) {
	var refusal *Refusal
	for i := range c.spots {
		s := &c.spots[i]
		here := false
		s.tokens(r, func(text string) bool {
			switch {
			case len(text) > maxTokenBytes:
				refusal = refuse("a token is longer than %d bytes", maxTokenBytes)
			case len(out) > 0 && out[0].text != text:
				refusal = refuse("the request has several tokens")
			case here:
			case len(out) == maxTokens:
				refusal = refuse("the request has its token in more than %d places", maxTokens)
			default:
				out, here = append(out, found{s, text}), true
			}
			return refusal == nil
		})
		if refusal != nil {
			return nil, refusal
		}
	}
	return out, nil
}

// accept returns what the token says and the rule of the place that accepts it.
func (s *spot) accept(ctx context.Context, text string) (*Token, *rule, *Refusal) {
	now := time.Now()
	for _, r := range s.rules {
		if keys := r.current(now); keys != nil && r.fault == "" {
			if t := r.tokens.get(cacheKey{text, r, keys}); t != nil {
				return t, r, t.check(now)
			}
		}
	}
	sig, err := jose.ParseSignedCompact(text, algorithms)
	if err != nil {
		return nil, nil, refuse("the token is not a JWT with a signature of a kind that is accepted")
	}
	// There are no extensions that must be understood, and unencoded payloads have no
	// place in tokens (RFC 7797, 7).
	extra := sig.Signatures[0].Protected.ExtraHeaders
	if _, ok := extra["crit"]; ok {
		return nil, nil, refuse("the token wants extensions")
	}
	if _, ok := extra["b64"]; ok {
		return nil, nil, refuse("the token wants extensions")
	}
	var claims struct {
		Issuer string `json:"iss"`
	}
	if json.Unmarshal(sig.UnsafePayloadWithoutVerification(), &claims) != nil {
		return nil, nil, refuse("the token's claims are not JSON")
	}
	refusal := refuse("no rule accepts tokens of this issuer in this place")
	for _, r := range s.rules {
		if r.issuer != claims.Issuer {
			continue
		}
		t, why := r.verify(ctx, text, sig)
		if why == nil {
			return t, r, nil
		}
		refusal = why
	}
	return nil, nil, refusal
}
