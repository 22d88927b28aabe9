// Package snapshot holds the translated mesh as proxies receive it: each
// resource packed once for all proxies, at a version that is a hash of its
// content. It owns versions and differences; it keeps no history and knows no
// client.
//
// Because a version is the content's hash, a proxy that reconnects, to this
// process or to its successor, is sent only what differs from what it says it
// has. A Snapshot is immutable; Next makes the following one and tells what
// changed:
//
//	next, change, err := snapshot.Next(current, mesh)
//	for url, deltas := range change.Deltas {
//		…
//	}
package snapshot
