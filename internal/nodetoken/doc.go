// Package nodetoken makes and checks the bearer tokens with which proxies of the
// local mesh authenticate to the control plane. They are JWTs (RFC 7519) signed
// with ES256 and shaped like Kubernetes's bound service account tokens, so that
// what reads them is the same in both worlds; in Kubernetes itself tokens are
// the API server's and this package is not used.
//
// The algorithm is not negotiable: whatever a token's header says, only ES256
// with one of the given keys is accepted.
package nodetoken
