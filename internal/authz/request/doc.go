// Package request decides whether a request may pass: Istio's
// AuthorizationPolicies as a waypoint enforces them, over plain values.
//
// It owns the compiled form of tulle.waypoint.Policy, the decision and its
// explanation. It knows no connection and no codec, and asks no external
// authorizer: it says which ones must be asked and does not permit without their
// consent.
//
// The order is Istio's: CUSTOM policies that fit ask their providers, and all must
// agree; then a DENY policy that fits denies; then, if there are ALLOW policies, one
// of them must fit. AUDIT and dry-run policies never change the outcome. A policy
// fits when one of its rules does; a rule when one of its sources, one of its
// operations and all of its conditions do.
//
// # Doubt
//
// What is not understood or not known makes a policy stricter, never weaker. Each
// condition leans one way: where its being matched restricts (the values of a DENY,
// AUDIT or CUSTOM policy, the excluded values of an ALLOW policy) it is wide, and
// takes every doubt as a match; elsewhere it is narrow and takes none. A condition
// that cannot be judged at all (an unknown key, an attribute that the connection
// does not have, like the path of a TCP connection) never holds in ALLOW and always
// holds otherwise.
//
// Where Istio, as documented, would let something pass, this package does not:
//
//   - Rules with an unknown key are dropped there, whatever the action; here a DENY
//     rule keeps denying what the rest of it fits. The same goes for values that
//     are not understood, and for conditions without values.
//   - Paths are judged as they are and as a careless application may read them
//     (%2F, %5C and repeated slashes); a request must pass as both. Istio's default
//     compares the first only, so that a DENY of /admin misses //admin.
//   - A wide host without a port fits with any, one with a port also where the request
//     leaves it out, and both with a dot at the end; Istio compares the authority as it
//     is, so that a DENY of a host misses host:80, and one of host:* the host.
//   - A wide header value fits one of several lines of its field; Istio compares
//     the lines joined by commas, so that a second line hides the first.
//   - A wide method fits in any case; a wide claim fits numbers and booleans too; a
//     star elsewhere than at one end of a wide value stands for anything.
//   - request.headers of fields that frame a message and do not get this far are
//     unknown keys. experimental.envoy.filters.* are as well: there is no Envoy.
//   - {*} takes any character but a slash; Envoy's list of characters lacks some
//     that paths may have.
//
// The key policy.tulle.dev/cel is not Istio's: its values are expressions of package
// internal/cel. One that cannot be evaluated for a request is in doubt.
//
// Istio's meaning of absence stays as it is: a client without identity or token is
// not among the principals that notPrincipals or notRequestPrincipals exclude.
//
//	policy := request.Compile(proto)
//	set := request.NewPolicies(policy)
//	consent := set.Consult(&attributes)
//	for _, provider := range consent.Providers() {
//		if ask(provider) == nil {
//			consent.Agree(provider)
//		}
//	}
//	permit, observed, err := set.Authorize(&attributes, consent)
package request
