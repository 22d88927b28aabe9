// Package authz decides whether a connection may pass: the L4 semantics of
// Istio's authorization policies over plain values.
//
// It owns the compiled form of a policy, the decision and its explanation. It
// does not know sockets, tunnels or where policies come from.
//
// The rules: any DENY policy that matches denies; then, if there are ALLOW
// policies, one of them must match; with no policies at all the connection is
// allowed. Dry-run policies never change the outcome, they are reported beside
// it. A policy matches when one of its rules does, a rule when all its clauses
// do, a clause when it is empty or one of its matches does, and a match when it
// has conditions and all of them hold; a condition holds when one of its
// values does (for a negated one: when none does).
//
// What this proxy does not understand makes a policy stricter: in an ALLOW
// policy an unknown condition never holds, in a DENY policy it always does.
//
//	policy, err := authz.ParsePolicy(proto)
//	set := authz.NewPolicies(policy)
//	permit, dryRun, err := set.Authorize(authz.Attributes{Source: peer, Identity: id, Destination: dst})
package authz
