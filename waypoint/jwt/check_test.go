package jwt_test

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	api "github.com/tulle-mesh/tulle/api/waypoint"
	"github.com/tulle-mesh/tulle/internal/authz/request"
	"github.com/tulle-mesh/tulle/waypoint/jwt"
	"github.com/tulle-mesh/tulle/waypoint/message"
)

var _ request.Token = (*jwt.Token)(nil)

func TestAllAlgorithmsWithAPublicKey(t *testing.T) {
	for alg, key := range keyMaterial() {
		s := sign(t, alg, key, "k", nil)
		c := checker(t, inline("joe", jwks(t, s)))
		token, err := c.Check(t.Context(), bearer(s.token(t, `{"iss":"joe","sub":"x"}`)))
		if err != nil || token.Principal() != "joe/x" {
			t.Errorf("%s: %v", alg, err)
		}
	}
}

// TestForeignToken verifies the example of RFC 7515, A.3, in a time when it is valid.
func TestForeignToken(t *testing.T) {
	const (
		set = `{"keys":[{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",` +
			`"y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}`
		token = "eyJhbGciOiJFUzI1NiJ9" +
			".eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ" +
			".DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"
	)
	synctest.Test(t, func(t *testing.T) { // in the year 2000
		c := checker(t, inline("joe", set))
		got, err := c.Check(t.Context(), bearer(token))
		if err != nil {
			t.Fatal(err)
		}
		root, ok := got.Claim([]string{"http://example.com/is_root"})
		if !ok || !slices.Equal(root.Others, []string{"true"}) {
			t.Errorf("%+v", root)
		}
	})
	if _, err := checker(t, inline("joe", set)).Check(t.Context(), bearer(token)); !refused(err, "expired") {
		t.Error(err)
	}
}

func TestTokensThatAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		good, other := fresh(t, "one"), fresh(t, "one")
		now := time.Now().Unix()
		claims := func(format string, args ...any) string {
			return good.token(t, `{"iss":"joe","aud":["books"]`+fmt.Sprintf(format, args...)+`}`)
		}
		whole := claims("")
		parts := strings.Split(whole, ".")
		b64 := base64.RawURLEncoding.EncodeToString
		rule := inline("joe", jwks(t, good))
		rule.Audiences = []string{"books", "films"}
		c := checker(t, rule)
		secret, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.HS256, Key: []byte(strings.Repeat("s", 32))}, nil)
		if err != nil {
			t.Fatal(err)
		}
		shared := signer{Signer: secret}
		extended := sign(t, jose.ES256, keyMaterial()[jose.ES256], "one", (&jose.SignerOptions{}).WithCritical("exp").WithHeader("exp", 1))
		for name, test := range map[string]struct{ token, reason string }{
			"good":                  {whole, ""},
			"several audiences":     {good.token(t, `{"iss":"joe","aud":"films"}`), ""},
			"just expired":          {claims(`,"exp":%d`, now-59), ""},
			"expired":               {claims(`,"exp":%d`, now-61), "expired"},
			"begins soon":           {claims(`,"nbf":%d`, now+59), ""},
			"begins later":          {claims(`,"nbf":%d`, now+61), "not valid yet"},
			"ends in a fraction":    {claims(`,"exp":%d.5`, now), ""},
			"ends at a word":        {claims(`,"exp":"never"`), "exp"},
			"ends at a text":        {claims(`,"exp":"%d"`, now+100), "exp"},
			"ends at null":          {claims(`,"exp":null`), "exp"},
			"ended in 1970":         {claims(`,"exp":0`), "exp"},
			"another issuer":        {good.token(t, `{"iss":"jim","aud":"books"}`), "issuer"},
			"issuer in other case":  {good.token(t, `{"ISS":"joe","aud":"books"}`), "another issuer"},
			"no issuer":             {good.token(t, `{"aud":"books"}`), "issuer"},
			"issuer twice":          {good.token(t, `{"iss":"jim","aud":"books","iss":"joe"}`), "twice"},
			"another audience":      {good.token(t, `{"iss":"joe","aud":["music"]}`), "audience"},
			"no audience":           {good.token(t, `{"iss":"joe"}`), "audience"},
			"audience is a number":  {good.token(t, `{"iss":"joe","aud":7}`), "audience"},
			"another key":           {other.token(t, `{"iss":"joe","aud":"books"}`), "not by the key"},
			"claims are a list":     {good.token(t, `["iss"]`), "JSON"},
			"claims are cut":        {good.token(t, `{"iss":"joe","aud":"books"`), "JSON"},
			"claims are followed":   {good.token(t, `{"iss":"joe","aud":"books"} {}`), "JSON"},
			"claims are deep":       {claims(`,"x":%s`, strings.Repeat("[", 50)+strings.Repeat("]", 50)), "deep"},
			"claims are many":       {claims(`,"x":[%s0]`, strings.Repeat("0,", 5000)), "many"},
			"signature changed":     {parts[0] + "." + parts[1] + "." + b64(make([]byte, 64)), "not by the key"},
			"no signature":          {parts[0] + "." + parts[1] + ".", "not by the key"},
			"payload changed":       {parts[0] + "." + b64([]byte(`{"iss":"joe","aud":"books","sub":"root"}`)) + "." + parts[2], "not by the key"},
			"unsigned":              {b64([]byte(`{"alg":"none"}`)) + "." + parts[1] + ".", "kind"},
			"unsigned, in caps":     {b64([]byte(`{"alg":"None"}`)) + "." + parts[1] + ".", "kind"},
			"by a shared secret":    {shared.token(t, `{"iss":"joe","aud":"books"}`), "kind"},
			"with extensions":       {extended.token(t, `{"iss":"joe","aud":"books"}`), "extensions"},
			"two parts":             {parts[0] + "." + parts[1], "kind"},
			"four parts":            {whole + ".x", "kind"},
			"not base64":            {"!." + parts[1] + "." + parts[2], "kind"},
			"a word":                {"word", "kind"},
			"too long":              {strings.Repeat("x", 16<<10+1), "longer"},
			"with its own key":      {parts[0] + "." + parts[1] + "." + parts[2] + "\x00", "kind"},
			"key of another family": {sign(t, jose.EdDSA, keyMaterial()[jose.EdDSA], "one", nil).token(t, `{"iss":"joe","aud":"books"}`), "not by the key"},
		} {
			r := bearer(test.token)
			token, err := c.Check(t.Context(), r)
			switch {
			case test.reason == "" && (err != nil || token == nil):
				t.Errorf("%s: %v", name, err)
			case test.reason != "" && (!refused(err, test.reason) || token != nil):
				t.Errorf("%s: %v, want %q", name, err, test.reason)
			}
		}
	})
}

func TestRequestsWithoutTokenPass(t *testing.T) {
	c := checker(t, inline("joe", jwks(t, fresh(t, ""))))
	for name, r := range map[string]*message.Request{
		"nothing":          {Path: "/"},
		"another scheme":   {Header: message.Header{{Name: "authorization", Value: "Basic eDp5"}}},
		"an empty token":   {Header: message.Header{{Name: "authorization", Value: "Bearer "}}},
		"scheme alone":     {Header: message.Header{{Name: "authorization", Value: "Bearer"}}},
		"an empty query":   {Query: "access_token=&x=1", HasQuery: true},
		"another query":    {Query: "access_tokens=x", HasQuery: true},
		"cookies, unasked": {Header: message.Header{{Name: "cookie", Value: "access_token=x"}}},
	} {
		before := r.Clone()
		token, err := c.Check(t.Context(), r)
		if token != nil || err != nil || !slices.Equal(r.Header, before.Header) || r.Query != before.Query {
			t.Errorf("%s: %v, %v; %+v", name, token, err, r)
		}
	}
	if c := jwt.NewChecker(); !c.Empty() {
		t.Error("a checker without rules is not empty")
	}
	var none *jwt.Token
	if _, ok := none.Claim([]string{"iss"}); ok || none.Principal() != "" {
		t.Error("no token has claims")
	}
}

func TestPlaces(t *testing.T) {
	s := fresh(t, "k")
	token := s.token(t, `{"iss":"joe","sub":"x"}`)
	header := func(pairs ...string) message.Header {
		var h message.Header
		for i := 0; i < len(pairs); i += 2 {
			h.Add(pairs[i], pairs[i+1])
		}
		return h
	}
	custom := inline("joe", jwks(t, s))
	custom.FromHeaders = []*api.TokenHeader{{Name: "X-Token"}, {Name: "authorization", Prefix: "Token "}}
	custom.FromParams = []string{"my token"}
	custom.FromCookies = []string{"session"}
	for name, test := range map[string]struct {
		custom        bool
		header        message.Header
		query         string
		left          message.Header
		leftQuery     string
		none, refused bool
	}{
		"authorization":             {header: header("a", "1", "authorization", "Bearer "+token, "b", "2"), left: header("a", "1", "b", "2")},
		"scheme in lower case":      {header: header("authorization", "bearer  "+token)},
		"another scheme beside":     {header: header("authorization", "Basic x", "authorization", "Bearer "+token), left: header("authorization", "Basic x")},
		"query":                     {query: "a=1&access_token=" + token + "&b=%2f", leftQuery: "a=1&b=%2f"},
		"query, written otherwise":  {query: "access%5ftoken=" + token},
		"query, alone":              {query: "access_token=" + token},
		"default places, unasked":   {custom: true, header: header("authorization", "Bearer "+token), left: header("authorization", "Bearer "+token), none: true},
		"header":                    {custom: true, header: header("x-token", token)},
		"header with prefix":        {custom: true, header: header("authorization", "Token "+token)},
		"prefix in other case":      {custom: true, header: header("authorization", "token "+token), left: header("authorization", "token "+token), none: true},
		"param with a space":        {custom: true, query: "my+token=" + token + "&x", leftQuery: "x"},
		"cookie":                    {custom: true, header: header("cookie", "a=1; session="+token+"; b=2"), left: header("cookie", "a=1; b=2")},
		"cookie in quotes":          {custom: true, header: header("cookie", `session="`+token+`"`)},
		"cookies in two lines":      {custom: true, header: header("cookie", "a=1", "cookie", "session="+token), left: header("cookie", "a=1")},
		"the same token twice":      {header: header("authorization", "Bearer "+token), query: "access_token=" + token},
		"two lines, equal":          {header: header("authorization", "Bearer "+token, "authorization", "bearer "+token)},
		"two tokens in two places":  {header: header("authorization", "Bearer "+token), query: "access_token=x", refused: true},
		"two tokens in two lines":   {header: header("authorization", "Bearer "+token, "authorization", "Bearer x"), refused: true},
		"two tokens in one query":   {query: "access_token=" + token + "&access_token=x", refused: true},
		"two tokens in two cookies": {custom: true, header: header("cookie", "session=x; session="+token), refused: true},
	} {
		rule := inline("joe", jwks(t, s))
		if test.custom {
			rule = proto.CloneOf(custom)
		}
		r := &message.Request{Path: "/", Header: test.header.Clone(), Query: test.query, HasQuery: test.query != ""}
		got, err := checker(t, rule).Check(t.Context(), r)
		switch {
		case test.refused:
			if !refused(err, "several tokens") {
				t.Errorf("%s: %v", name, err)
			}
			continue
		case err != nil || (got == nil) != test.none:
			t.Errorf("%s: token %v, %v", name, got, err)
		case !slices.Equal(r.Header, test.left) || r.Query != test.leftQuery || r.HasQuery != (test.leftQuery != ""):
			t.Errorf("%s: left %v and query %q", name, r.Header, r.Query)
		}
		if test.none {
			continue
		}
		rule.ForwardOriginalToken = true
		r = &message.Request{Path: "/", Header: test.header.Clone(), Query: test.query, HasQuery: test.query != ""}
		if _, err := checker(t, rule).Check(t.Context(), r); err != nil || !slices.Equal(r.Header, test.header) || r.Query != test.query {
			t.Errorf("%s, forwarded: %v; left %v and query %q", name, err, r.Header, r.Query)
		}
	}
}

func TestOutput(t *testing.T) {
	s := fresh(t, "k")
	claims := `{"iss":"joe","sub":"x","n":12345678901234567890,"b":false,"list":["a"],"deep":{"er":"y"},"a.b":"dotted",` +
		`"bad":"a\r\nx-admin: 1","empty":"","pad":" x ","utf":"é"}`
	token := s.token(t, claims)
	rule := inline("joe", jwks(t, s))
	rule.OutputPayloadToHeader = "X-Payload"
	for _, claim := range []string{"sub", "n", "b", "list", "deep.er", "a.b", "bad", "empty", "pad", "none", "deep.none", "deep", "utf"} {
		rule.OutputClaimToHeaders = append(rule.OutputClaimToHeaders, &api.ClaimHeader{Header: "X-" + strings.ReplaceAll(claim, ".", "-"), Claim: claim})
	}
	c := checker(t, rule)
	forged := message.Header{{Name: "x-payload", Value: "forged"}, {Name: "x-sub", Value: "root"}, {Name: "x-none", Value: "forged"}, {Name: "x-bad", Value: "forged"}}
	r := bearer(token)
	r.Header = append(forged.Clone(), r.Header...)
	if _, err := c.Check(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	want := message.Header{
		{Name: "accept", Value: "*/*"}, {Name: "x-payload", Value: strings.Split(token, ".")[1]},
		{Name: "x-sub", Value: "x"}, {Name: "x-n", Value: "12345678901234567890"}, {Name: "x-b", Value: "false"},
		{Name: "x-deep-er", Value: "y"}, {Name: "x-a-b", Value: "dotted"}, {Name: "x-empty", Value: ""}, {Name: "x-utf", Value: "é"},
	}
	if !slices.Equal(r.Header, want) {
		t.Errorf("%v\nwant %v", r.Header, want)
	}
	// Without a token, and with one that is refused, nothing forged stays either.
	for _, h := range []message.Header{nil, {{Name: "authorization", Value: "Bearer x"}}} {
		r := &message.Request{Header: append(forged.Clone(), h...)}
		token, _ := c.Check(t.Context(), r)
		if token != nil || !slices.Equal(r.Header, h) {
			t.Errorf("%v: %v", h, r.Header)
		}
	}
}

func TestClaims(t *testing.T) {
	s := fresh(t, "k")
	rule := inline("joe", jwks(t, s))
	rule.SpaceDelimitedClaims = []string{"roles", "deep.words", "group"}
	token, err := checker(t, rule).Check(t.Context(), bearer(s.token(t, `{"iss":"joe","scope":"read  write","permission":"all",
		"roles":"a b","deep":{"words":"x y","n":7},"group":["a b","c",1,true,null,{"x":"y"},["z"]],"word":"a b","object":{},"null":null}`)))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]request.Claim{
		"scope":      {Strings: []string{"read", "write"}, Others: []string{"read  write"}},
		"permission": {Strings: []string{"all"}},
		"roles":      {Strings: []string{"a", "b"}, Others: []string{"a b"}},
		"deep.words": {Strings: []string{"x", "y"}, Others: []string{"x y"}},
		"deep.n":     {Others: []string{"7"}},
		"group":      {Strings: []string{"a b", "c"}, Others: []string{"1", "true"}},
		"word":       {Strings: []string{"a b"}},
		"object":     {}, "null": {}, "deep": {},
	} {
		got, ok := token.Claim(strings.Split(name, "."))
		if !ok || !slices.Equal(got.Strings, want.Strings) || !slices.Equal(got.Others, want.Others) {
			t.Errorf("%s: %+v, %v; want %+v", name, got, ok, want)
		}
	}
	for _, name := range [][]string{{"none"}, {"deep", "none"}, {"word", "x"}, {"group", "x"}, {}} {
		if got, ok := token.Claim(name); ok {
			t.Errorf("%v: %+v", name, got)
		}
	}
	if token.Principal() != "" || token.Issuer() != "joe" || token.Subject() != "" {
		t.Errorf("principal %q of a token without subject", token.Principal())
	}
}

func TestIssuersOfOnePlace(t *testing.T) {
	one, two := fresh(t, "k"), fresh(t, "k")
	k := keys(t, &server{})
	ours := compile(t, k, inline("joe", jwks(t, one)), inline("jim", jwks(t, two)))
	c := jwt.NewChecker(ours)
	for _, test := range []struct {
		signer signer
		issuer string
		ok     bool
	}{{one, "joe", true}, {two, "jim", true}, {one, "jim", false}, {two, "joe", false}} {
		_, err := c.Check(t.Context(), bearer(test.signer.token(t, `{"iss":"`+test.issuer+`"}`)))
		if (err == nil) != test.ok {
			t.Errorf("%s: %v", test.issuer, err)
		}
	}
	// Another resource may name the same issuer with its own keys; what those verify
	// is good there alone, remembered or not.
	theirs := jwt.NewChecker(compile(t, k, inline("joe", jwks(t, two))))
	forged := two.token(t, `{"iss":"joe","sub":"root"}`)
	for range 2 {
		if _, err := theirs.Check(t.Context(), bearer(forged)); err != nil {
			t.Error(err)
		}
		if _, err := c.Check(t.Context(), bearer(forged)); err == nil {
			t.Error("a token counts that was verified for somebody else")
		}
	}
	// Where both apply, either's keys do.
	both := jwt.NewChecker(ours, compile(t, k, inline("joe", jwks(t, two))))
	if _, err := both.Check(t.Context(), bearer(forged)); err != nil {
		t.Error(err)
	}
}

func TestRememberedTokensAreJudgedByTheClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := fresh(t, "k")
		c := checker(t, inline("joe", jwks(t, s)))
		token := s.token(t, fmt.Sprintf(`{"iss":"joe","exp":%d}`, time.Now().Unix()+100))
		for _, ok := range []bool{true, true, false} {
			if _, err := c.Check(t.Context(), bearer(token)); (err == nil) != ok {
				t.Errorf("after %v: %v", ok, err)
			}
			if ok {
				time.Sleep(100 * time.Second)
			}
		}
	})
}

func TestRememberedTokensCostNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, srv := fresh(t, "k"), &server{}
		srv.set(url, jwks(t, s), 0)
		c := jwt.NewChecker(compile(t, keys(t, srv), remote("joe", url)))
		r, header := bearer(s.token(t, `{"iss":"joe"}`)), message.Header{}
		header = append(header, r.Header...)
		again := func() float64 {
			return testing.AllocsPerRun(10, func() {
				r.Header = append(r.Header[:0], header...)
				if _, err := c.Check(t.Context(), r); err != nil {
					t.Fatal(err)
				}
			})
		}
		if n := again(); n != 0 {
			t.Errorf("%v allocations", n)
		}
		// Nor when the keys were fetched again and are the same.
		time.Sleep(time.Hour)
		synctest.Wait()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		r.Header = append(r.Header[:0], header...)
		if _, err := c.Check(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		runtime.ReadMemStats(&after)
		if n := after.Mallocs - before.Mallocs; n > 50 {
			t.Errorf("%d allocations after an hour: the token was verified anew", n)
		}
	})
}

func TestKeySets(t *testing.T) {
	s, other := fresh(t, "k"), fresh(t, "")
	token := s.token(t, `{"iss":"joe"}`)
	nameless := sign(t, jose.ES256, keyMaterial()[jose.ES256], "", nil)
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	withAlg := s
	withAlg.public.Algorithm = "ES384"
	encrypts := s
	encrypts.public.Use = "enc"
	for name, test := range map[string]struct {
		set, token, warning, reason string
	}{
		"one key":                  {jwks(t, s), token, "", ""},
		"kinds that are of no use": {`{"keys":[{"kty":"oct","k":"c2VjcmV0"},{"kty":"new"},5,` + jwks(t, s)[len(`{"keys":[`):], token, "", ""},
		"key without name":         {jwks(t, nameless), sign(t, jose.ES256, keyMaterial()[jose.ES256], "k", nil).token(t, `{"iss":"joe"}`), "", ""},
		"token without key":        {jwks(t, other, nameless), nameless.token(t, `{"iss":"joe"}`), "", ""},
		"token without known key":  {jwks(t, fresh(t, "other")), token, "", "no key"},
		"another key of the set":   {jwks(t, s, fresh(t, "other")), sign(t, jose.ES256, s.private, "other", nil).token(t, `{"iss":"joe"}`), "", "not by the key"},
		"key for another use":      {jwks(t, encrypts), token, "no public key", ""},
		"key for another alg":      {jwks(t, withAlg), token, "", "not by the key"},
		"no keys":                  {`{"keys":[]}`, token, "no public key", ""},
		"empty object":             {`{}`, token, "no public key", ""},
		"not JSON":                 {`keys`, token, "key set", ""},
		"keys are no list":         {`{"keys":{}}`, token, "key set", ""},
		"too many":                 {jwks(t, slices.Repeat([]signer{s}, 65)...), token, "more than 64", ""},
		"weak":                     {jwks(t, sign(t, jose.ES256, keyMaterial()[jose.ES256], "k", nil), signer{public: jose.JSONWebKey{Key: &weak.PublicKey, KeyID: "w"}}), token, "", "not by the key"},
		"weak alone":               {jwks(t, signer{public: jose.JSONWebKey{Key: &weak.PublicKey}}), token, "no public key", ""},
		"private by mistake":       {`{"keys":[` + private(t, "k") + `]}`, sign(t, jose.ES256, keyMaterial()[jose.ES256], "k", nil).token(t, `{"iss":"joe"}`), "", ""},
	} {
		a := compile(t, keys(t, &server{}), inline("joe", test.set))
		if w := strings.Join(a.Warnings(), " "); (w != "") != (test.warning != "") || !strings.Contains(w, test.warning) {
			t.Errorf("%s: warnings %q, want %q", name, w, test.warning)
		}
		reason := test.reason
		if test.warning != "" {
			reason = "cannot check tokens"
		}
		_, err := jwt.NewChecker(a).Check(t.Context(), bearer(test.token))
		if reason == "" && err != nil || reason != "" && !refused(err, reason) {
			t.Errorf("%s: %v, want %q", name, err, reason)
		}
	}
}

func private(t testing.TB, id string) string {
	t.Helper()
	b, err := jose.JSONWebKey{Key: keyMaterial()[jose.ES256], KeyID: id}.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestRulesThatAreNotUnderstood(t *testing.T) {
	s := fresh(t, "k")
	good := func() *api.TokenRule { return inline("joe", jwks(t, s)) }
	unknown := func(m proto.Message) {
		m.ProtoReflect().SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 1000, protowire.VarintType), 1))
	}
	for name, change := range map[string]func(*api.TokenRule){
		"fault":          func(r *api.TokenRule) { r.Fault = "no such thing" },
		"no issuer":      func(r *api.TokenRule) { r.Issuer = "" },
		"unknown field":  func(r *api.TokenRule) { unknown(r) },
		"no keys":        func(r *api.TokenRule) { r.Keys = nil },
		"keys of a file": func(r *api.TokenRule) { r.Keys = &api.TokenRule_JwksUri{JwksUri: "file:///etc/passwd"} },
		"keys of a user": func(r *api.TokenRule) { r.Keys = &api.TokenRule_JwksUri{JwksUri: "https://u:p@x/"} },
		"framing header": func(r *api.TokenRule) { r.OutputPayloadToHeader = "Content-Length" },
		"not a header":   func(r *api.TokenRule) { r.OutputClaimToHeaders = []*api.ClaimHeader{{Header: "x y", Claim: "a"}} },
		"no claim":       func(r *api.TokenRule) { r.OutputClaimToHeaders = []*api.ClaimHeader{{Header: "x"}} },
		"place in no field": func(r *api.TokenRule) {
			r.FromHeaders = []*api.TokenHeader{{}, {Name: "authorization", Prefix: "Bearer "}}
		},
		"nameless cookie":  func(r *api.TokenRule) { r.FromCookies = []string{""}; r.FromHeaders = bearerPlace() },
		"nameless param":   func(r *api.TokenRule) { r.FromParams = []string{""}; r.FromHeaders = bearerPlace() },
		"unknown in place": func(r *api.TokenRule) { r.FromHeaders = bearerPlace(); unknown(r.FromHeaders[0]) },
		"long lists":       func(r *api.TokenRule) { r.FromParams = slices.Repeat([]string{"a"}, 65) },
	} {
		r := good()
		change(r)
		a := compile(t, keys(t, &server{}), r)
		if len(a.Warnings()) != 1 {
			t.Errorf("%s: warnings %v", name, a.Warnings())
		}
		if _, err := jwt.NewChecker(a).Check(t.Context(), bearer(s.token(t, `{"iss":"joe"}`))); !refused(err, "") {
			t.Errorf("%s: %v", name, err)
		}
	}
	k := keys(t, &server{})
	future := &api.Authentication{Namespace: "ns", Name: "a", Rules: []*api.TokenRule{good()}}
	unknown(future)
	a, err := k.Compile(future)
	if err != nil || len(a.Warnings()) != 1 || a.Key() != "ns/a" {
		t.Fatal(a.Warnings(), err)
	}
	if _, err := jwt.NewChecker(a).Check(t.Context(), bearer(s.token(t, `{"iss":"joe"}`))); !refused(err, "fields") {
		t.Error(err)
	}
	a, err = k.Compile(&api.Authentication{Namespace: "ns", Name: "a", Rules: slices.Repeat([]*api.TokenRule{good()}, 4097)})
	if err != nil {
		t.Fatal(err)
	}
	var refusal *jwt.Refusal
	_, err = jwt.NewChecker(a).Check(t.Context(), &message.Request{})
	if refusal, _ = err.(*jwt.Refusal); refusal == nil || refusal.Status != 503 || refusal.Challenge() != "" {
		t.Error(err)
	}
	for _, in := range []*api.Authentication{{}, {Name: "a"}, {Namespace: "a"}, {Namespace: "a", Name: strings.Repeat("x", 2000)}} {
		if _, err := k.Compile(in); err == nil {
			t.Errorf("%v: no error", in)
		}
	}
}

func bearerPlace() []*api.TokenHeader {
	return []*api.TokenHeader{{Name: "authorization", Prefix: "Bearer "}}
}

func TestCheckersThatMissAResourceRefuse(t *testing.T) {
	c := checker(t, inline("joe", jwks(t, fresh(t, "k"))))
	missing := c.WithMissing("shop/late")
	if _, err := missing.Check(t.Context(), &message.Request{}); err == nil || !strings.Contains(err.Error(), "shop/late") || missing.Empty() {
		t.Error(err)
	}
	if _, err := c.Check(context.Background(), &message.Request{}); err != nil {
		t.Error("the other checker changed: ", err)
	}
}
