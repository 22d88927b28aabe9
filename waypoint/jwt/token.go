package jwt

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/tulle-mesh/tulle/internal/authz/request"
)

// Token is a token that was verified. It is immutable and safe for concurrent use. A
// nil Token has no claims.
type Token struct {
	claims map[string]*node
	// expires and begins are seconds since 1970; zero says that the token does not.
	expires, begins float64
	// payload is the token's second part, as it came.
	payload string

	// all are the claims as JSON has them, made when they are asked for.
	once sync.Once
	all  map[string]any
}

// node is one claim.
type node struct {
	claim request.Claim
	// scalar is the text of a string, number or boolean, has tells an empty one from
	// none; whole is a string.
	scalar     string
	has, whole bool
	members    map[string]*node
}

// Claim returns the claim under the nested names. It implements request.Token.
func (t *Token) Claim(names []string) (request.Claim, bool) {
	n := t.find(names)
	if n == nil {
		return request.Claim{}, false
	}
	return n.claim, true
}

// Claims returns all claims as encoding/json reads them, nil of a nil Token. Nobody may
// change them.
func (t *Token) Claims() map[string]any {
	if t == nil {
		return nil
	}
	t.once.Do(func() {
		if payload, err := base64.RawURLEncoding.DecodeString(t.payload); err == nil {
			_ = json.Unmarshal(payload, &t.all) // was read once already
		}
	})
	return t.all
}

// Issuer is who made the token.
func (t *Token) Issuer() string { return t.text("iss") }

// Subject is whom the token is about.
func (t *Token) Subject() string { return t.text("sub") }

// Principal is issuer/subject, empty unless the token has both.
func (t *Token) Principal() string {
	issuer, subject := t.Issuer(), t.Subject()
	if issuer == "" || subject == "" {
		return ""
	}
	return issuer + "/" + subject
}

func (t *Token) text(name string) string {
	if t == nil {
		return ""
	}
	if n := t.claims[name]; n != nil && n.whole {
		return n.scalar
	}
	return ""
}

func (t *Token) find(names []string) *node {
	if t == nil {
		return nil
	}
	members := t.claims
	var n *node
	for _, name := range names {
		if n = members[name]; n == nil {
			return nil
		}
		members = n.members
	}
	return n
}

// named finds a claim by a name as rules write it: the claim of that very name, else
// the one that its parts between dots lead to.
func (t *Token) named(name string) *node {
	if n := t.claims[name]; n != nil {
		return n
	}
	if !strings.Contains(name, ".") {
		return nil
	}
	return t.find(strings.Split(name, "."))
}

// check judges a token by the clock.
func (t *Token) check(now time.Time) *Refusal {
	seconds := float64(now.Unix())
	switch {
	case t.expires != 0 && seconds > t.expires+clockSkew:
		return refuse("the token has expired")
	case t.begins != 0 && seconds < t.begins-clockSkew:
		return refuse("the token is not valid yet")
	}
	return nil
}

// parseToken reads the payload of a token that was verified. spaced are the claims
// that hold several words in one string.
func parseToken(payload []byte, spaced []string) (*Token, error) {
	p := claimParser{decoder: json.NewDecoder(bytes.NewReader(payload))}
	p.decoder.UseNumber()
	root, err := p.value(0)
	if err != nil {
		return nil, err
	}
	if root.members == nil {
		return nil, errors.New("the claims are not an object")
	}
	if _, err := p.decoder.Token(); err != io.EOF {
		return nil, errors.New("something follows the claims")
	}
	t := &Token{claims: root.members}
	if t.expires, err = t.time("exp"); err != nil {
		return nil, err
	}
	if t.begins, err = t.time("nbf"); err != nil {
		return nil, err
	}
	for _, name := range spaced {
		if n := t.named(name); n != nil && n.whole {
			n.claim.Strings = strings.Fields(n.scalar)
			if len(n.claim.Strings) != 1 || n.claim.Strings[0] != n.scalar {
				n.claim.Others = []string{n.scalar}
			}
		}
	}
	return t, nil
}

func (t *Token) time(name string) (float64, error) {
	n := t.claims[name]
	if n == nil {
		return 0, nil
	}
	seconds, err := strconv.ParseFloat(n.scalar, 64)
	// A token for ever does not say when it ends; one that ended in 1970 is no better.
	if err != nil || n.whole || !n.has || seconds <= 0 {
		return 0, fmt.Errorf("claim %s is not a time", name)
	}
	return seconds, nil
}

// claimParser builds the tree of claims and refuses what two parsers could read
// differently: members of the same name.
type claimParser struct {
	decoder *json.Decoder
	claims  int
}

func (p *claimParser) value(depth int) (*node, error) {
	token, err := p.decoder.Token()
	if err != nil {
		return nil, fmt.Errorf("the claims are not JSON: %w", err)
	}
	if p.claims++; p.claims > maxClaims || depth > maxClaimDepth {
		return nil, errors.New("the claims are too many or too deep")
	}
	switch v := token.(type) {
	case string:
		return &node{claim: request.Claim{Strings: []string{v}}, scalar: v, has: true, whole: true}, nil
	case json.Number:
		return &node{claim: request.Claim{Others: []string{v.String()}}, scalar: v.String(), has: true}, nil
	case bool:
		text := strconv.FormatBool(v)
		return &node{claim: request.Claim{Others: []string{text}}, scalar: text, has: true}, nil
	case json.Delim:
		if v == '[' {
			return p.list(depth)
		}
		return p.object(depth)
	default: // null
		return &node{}, nil
	}
}

// list keeps the scalars of a list; what else is in it counts as being there.
func (p *claimParser) list(depth int) (*node, error) {
	out := &node{}
	for p.decoder.More() {
		element, err := p.value(depth + 1)
		if err != nil {
			return nil, err
		}
		switch {
		case element.whole:
			out.claim.Strings = append(out.claim.Strings, element.scalar)
		case element.has:
			out.claim.Others = append(out.claim.Others, element.scalar)
		}
	}
	return out, p.end()
}

func (p *claimParser) object(depth int) (*node, error) {
	out := &node{members: map[string]*node{}}
	for p.decoder.More() {
		token, err := p.decoder.Token()
		if err != nil {
			return nil, fmt.Errorf("the claims are not JSON: %w", err)
		}
		name, ok := token.(string)
		if !ok {
			return nil, errors.New("the claims are not JSON")
		}
		if out.members[name] != nil {
			return nil, errors.New("the claims have a name twice")
		}
		if out.members[name], err = p.value(depth + 1); err != nil {
			return nil, err
		}
	}
	return out, p.end()
}

func (p *claimParser) end() error {
	if _, err := p.decoder.Token(); err != nil {
		return fmt.Errorf("the claims are not JSON: %w", err)
	}
	return nil
}
