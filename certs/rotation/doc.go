// Package rotation keeps the certificates of a node fresh. A [Manager] holds one
// certificate per identity, however many workloads of the node share it, fetches
// its successor at half of its life, and forgets it, key and all, when the last
// workload has left.
//
//	manager := rotation.NewManager(rotation.Config{Signer: client})
//	defer manager.Close()
//	lease := manager.Acquire(id)
//	defer lease.Release()
//	if err := lease.Ready(ctx); err != nil { … }
//	conn := tls.Server(raw, mtls.Server(lease, lease))
//
// A failure never takes away a certificate that is still valid: the next attempt
// follows after a growing delay, and the state is told as overdue. After expiry
// there is no certificate any more, but attempts go on. Requests for identities
// that have none yet go before renewals, and only a few are under way at once,
// so that a node that starts with hundreds of pods does not storm the authority.
//
// Each identity has one goroutine, started by Acquire and ended by the last
// Release or by Close.
package rotation
