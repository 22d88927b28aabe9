// Package authority keeps the certificate authority of a cluster: its key and
// certificates lie in a Secret of the control plane's namespace, so that every
// replica signs with the same key and a new one begins with it.
//
// The Secret cacerts, when there is one, is an authority that the operator has
// plugged in. Otherwise it is istio-ca-secret, which the first replica makes.
// Replicas that start at the same moment against an empty cluster agree through
// the API server: the first to write wins, the others read. A replica that starts
// in a mesh which trusts other roots already, by its ConfigMap, waits and says so.
//
//	store, err := authority.New(authority.Config{Client: client, Namespace: ns, Authority: certs.AuthorityConfig{TrustDomain: td}})
//	a, err := store.Open(ctx) // blocks until the key is at hand
//	err = store.Run(ctx)      // follows the Secrets until ctx ends
//
// While it runs, another signing certificate below the same roots is taken over
// at once. Other roots are refused: proxies that trust only the old ones would
// fail. A Secret that can no longer be taken changes nothing for who runs: the
// store goes on with what it has, and says so. Keys are never logged.
package authority
