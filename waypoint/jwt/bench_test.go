package jwt_test

import (
	"testing"

	"github.com/go-jose/go-jose/v4"

	"github.com/tulle-mesh/tulle/waypoint/jwt"
	"github.com/tulle-mesh/tulle/waypoint/message"
)

func BenchmarkCheck(b *testing.B) {
	header := message.Header{
		{Name: "accept", Value: "*/*"}, {Name: "user-agent", Value: "bench"}, {Name: "x-request-id", Value: "1"},
		{Name: "traceparent", Value: "00-0-0-00"}, {Name: "cookie", Value: "a=b"},
	}
	b.Run("no token", func(b *testing.B) {
		c := checker(b, inline("joe", jwks(b, fresh(b, "k"))))
		r := &message.Request{Header: header, Query: "a=1&b=2", HasQuery: true}
		b.ReportAllocs()
		for b.Loop() {
			if _, err := c.Check(b.Context(), r); err != nil {
				b.Fatal(err)
			}
		}
	})
	for _, alg := range []jose.SignatureAlgorithm{jose.RS256, jose.ES256} {
		s := sign(b, alg, keyMaterial()[alg], "k", nil)
		token := s.token(b, `{"iss":"joe","sub":"x","aud":["a","b"],"exp":99999999999,"groups":["staff","readers"],"scope":"read write"}`)
		set := jwks(b, s)
		full := append(header.Clone(), message.Field{Name: "authorization", Value: "Bearer " + token})
		b.Run("remembered/"+string(alg), func(b *testing.B) {
			c := checker(b, inline("joe", set))
			scratch := make(message.Header, len(full))
			b.ReportAllocs()
			for b.Loop() {
				copy(scratch, full)
				if _, err := c.Check(b.Context(), &message.Request{Header: scratch}); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run("verified/"+string(alg), func(b *testing.B) {
			k := keys(b, &server{})
			b.ReportAllocs()
			for b.Loop() {
				// Rules that are new have verified nothing.
				b.StopTimer()
				c := jwt.NewChecker(compile(b, k, inline("joe", set)))
				b.StartTimer()
				if _, err := c.Check(b.Context(), &message.Request{Header: full.Clone()}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
