// Package certs owns the identities of the mesh: the authority that signs
// X509-SVIDs, the checks on what is asked of it and on what it answers, and the
// words in which a certificate's state is told.
//
// An [Authority] holds a self-signed root and an intermediate in a directory of
// its own and signs leaves with the intermediate. It has no goroutine: whoever
// asks for a signature when the intermediate is due renews it on the way. Who
// may have which identity is not decided here but by the caller (istiod-lite/ca);
// the authority only insists that the request names the identity granted.
//
//	authority, err := certs.OpenAuthority(dir, certs.AuthorityConfig{TrustDomain: td})
//	if err != nil { … }
//	defer authority.Close()
//	chain, err := authority.Sign(csrPEM, id, time.Hour)
//
// The private key of a workload never reaches this package's authority: nodes
// make it with [NewRequest] and check the answer with [VerifyIssued]. Fetching
// over gRPC is certs/caclient's, keeping certificates fresh certs/rotation's,
// and using them in TLS internal/mtls's work.
//
// # State on disk
//
// The directory holds root.pem and intermediate.pem, each one certificate
// with its private key, mode 0600, and root-cert.pem, the public bundle for
// clients, mode 0644. Key and certificate share one file so that one rename
// replaces both: there is no moment at which a key lies beside another's
// certificate. A file is written under a temporary name, synced, renamed, and
// the directory synced; a kill at any moment leaves the old or the new state,
// and leftovers are swept at the next start.
//
// A lost or unreadable intermediate is made anew from the root. A root that
// cannot be read is an error and never replaced: a second root would part the
// mesh into those who trust the one and those who trust the other. A key file
// that group or others may read is refused, not repaired, since narrowing the
// mode afterwards cannot tell whether someone has read the key before.
package certs
