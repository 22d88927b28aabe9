// Package jwt checks the tokens (RFC 7519) that requests carry, as Istio's
// RequestAuthentication says.
//
// It owns the rules compiled from tulle.waypoint.Authentication, the search for
// tokens in a request, their verification, the claims that authorization asks for,
// what is taken out of a request and put into it, and the issuers' keys: fetched,
// kept, renewed and rotated. It decides nothing but whether a token is good; that a
// request needs one is a policy's matter.
//
// A request without a token passes without a principal; one whose token no rule of
// its place accepts is refused. Signatures are asymmetric (RS, PS, ES, EdDSA); "none"
// and shared secrets do not exist here. Times are taken with a minute's tolerance.
//
// Where Istio's documentation leaves something open, this package is strict:
//
//   - Different tokens in one request are refused; there the principal "is
//     undefined", and one good token lets a bad one pass beside it.
//   - The header fields that a rule writes are taken out of every request first, with
//     or without a token, so that nobody else can write them.
//   - A token that is not forwarded is taken out of cookies and of the query too.
//   - Tokens are held to a key that names them where the set has one, and to the
//     algorithm that the key names.
//
// A value of a token's header field that lacks the prefix is not a token, as in
// Istio's proxy: other schemes of Authorization go their way.
//
// Keys live in a Keys, one per waypoint, which fetches in the background; a token
// that names an unknown key makes it fetch at once, though seldom. While an issuer is
// out of reach its last keys count for a day. Verified tokens are remembered with the
// keys that they were verified with, and judged by the clock each time.
//
//	keys := jwt.NewKeys(jwt.Config{Fetcher: jwt.NewHTTPFetcher(nil)})
//	defer keys.Close()
//	authentication, err := keys.Compile(proto)
//	defer authentication.Close()
//	checker := jwt.NewChecker(authentication)
//	token, err := checker.Check(ctx, req)
package jwt
