package jwt

import (
	"strings"
	"testing"

	"github.com/tulle-mesh/tulle/waypoint/message"
)

const exampleClaims = `{"iss":"joe","aud":["a",{"b":[1,true,null]}],"exp":99999999999,"nbf":1.5,"scope":"a b","deep":{"er":{"n":-1e3}}}`

const exampleKeys = `{"keys":[{"kty":"EC","crv":"P-256","kid":"k","alg":"ES256","use":"sig",` +
	`"x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}`

// FuzzParseToken reads claims: whatever is accepted can be asked for.
func FuzzParseToken(f *testing.F) {
	f.Add([]byte(exampleClaims), "deep.er")
	f.Add([]byte(`{"a":{"a":{"a":{}}}}`), "a.a.a")
	f.Fuzz(func(t *testing.T, payload []byte, name string) {
		token, err := parseToken(payload, []string{name, "scope"})
		if err != nil {
			return
		}
		token.Principal()
		token.named(name)
		if _, ok := token.Claim(strings.Split(name, ".")); ok && token.find(strings.Split(name, ".")) == nil {
			t.Fatal("a claim that cannot be found")
		}
	})
}

func TestTruncatedClaims(t *testing.T) {
	for i := range exampleClaims {
		if _, err := parseToken([]byte(exampleClaims[:i]), nil); err == nil {
			t.Errorf("%d bytes were accepted", i)
		}
	}
}

func FuzzParseKeySet(f *testing.F) {
	f.Add([]byte(exampleKeys))
	f.Add([]byte(`{"k":"-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n"}`))
	f.Fuzz(func(t *testing.T, doc []byte) {
		set, err := parseKeySet(doc)
		if err != nil {
			return
		}
		for _, k := range set.keys {
			if !usable(k.public) {
				t.Fatalf("%T is of no use", k.public)
			}
		}
	})
}

func TestTruncatedKeySets(t *testing.T) {
	for i := range exampleKeys {
		if _, err := parseKeySet([]byte(exampleKeys[:i])); err == nil {
			t.Errorf("%d bytes were accepted", i)
		}
	}
}

// FuzzPlaces looks for tokens and takes them out: what was taken out is not found
// again, and the rest stays.
func FuzzPlaces(f *testing.F) {
	f.Add("Bearer x", "a=1&access_token=y&%61ccess_token=z", "a=1; token=x; b=2")
	f.Fuzz(func(t *testing.T, field, query, cookie string) {
		for _, p := range append(defaultPlaces, place{kind: inCookie, name: "token"}) {
			r := &message.Request{
				Header: message.Header{{Name: "authorization", Value: field}, {Name: "cookie", Value: cookie}, {Name: "x", Value: "1"}},
				Query:  query, HasQuery: true,
			}
			found := false
			p.tokens(r, func(string) bool { found = true; return true })
			before := r.Clone()
			p.remove(r)
			p.tokens(r, func(text string) bool {
				t.Fatalf("%q is still there", text)
				return false
			})
			if r.Header.Get("x") != "1" {
				t.Fatal("another field went too")
			}
			// An empty value is no token, and may go with the name or stay.
			if !found && p.kind == inHeader && len(r.Header) != len(before.Header) {
				t.Fatalf("%v became %v", before.Header, r.Header)
			}
		}
	})
}

func TestTheCacheIsBounded(t *testing.T) {
	c, r := newCache(), &rule{}
	for i := range 20000 {
		c.put(cacheKey{token: strings.Repeat("x", i), rule: r}, &Token{})
	}
	count, bytes := 0, 0
	for i := range c.shards {
		for _, m := range []map[cacheKey]*Token{c.shards[i].young, c.shards[i].old} {
			count += len(m)
			for k := range m {
				bytes += tokenCost * len(k.token)
			}
		}
	}
	if count > 2*shards*shardSize || bytes > 2*shards*(shardBytes+tokenCost*20000) {
		t.Errorf("%d tokens of %d bytes", count, bytes)
	}
}

func TestTheCacheKeepsWhatIsAskedFor(t *testing.T) {
	c := newCache()
	hot := cacheKey{token: "hot"}
	c.put(hot, &Token{})
	for i := range 100000 {
		c.put(cacheKey{token: strings.Repeat("c", i%100) + string(rune(i))}, &Token{})
		if i%100 == 0 && c.get(hot) == nil {
			t.Fatalf("forgotten after %d others", i)
		}
	}
	if c.get(cacheKey{token: "never"}) != nil {
		t.Error("a token that was never put")
	}
}
