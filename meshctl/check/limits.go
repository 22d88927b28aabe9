package check

import "time"

const (
	// rootLeft and issuerLeft are how long before its end a certificate of the
	// authority is a warning: a root is changed by hand in every cluster of the
	// trust domain, an intermediate in one.
	rootLeft   = 60 * 24 * time.Hour
	issuerLeft = 14 * 24 * time.Hour
	// clockSkew is how far a node's clock may be from the API server's: certificates
	// begin two minutes in the past.
	clockSkew = time.Minute
	// leaseAge is how old the renewal of a node's lease may be while the node is
	// ready: kubelets renew every 10 s and are given up after 40 s.
	leaseAge = 45 * time.Second
	// leaderAge is how old the renewal of the leader's lease may be; it is renewed
	// every few seconds.
	leaderAge = 30 * time.Second
	// maxItems bounds what one check lists.
	maxItems = 10
	// minor is the oldest supported minor version of Kubernetes 1: the oldest that
	// the Gateway API's definitions (validation rules) and native tokens work with.
	minor = 30
)
