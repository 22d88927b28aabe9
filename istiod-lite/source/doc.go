// Package source defines what the control plane is told: Objects, an immutable
// snapshot of the Kubernetes and Istio objects that describe a mesh, and the
// checks that every object must pass, wherever it comes from. It owns which
// kinds exist for Tulle and what a valid one looks like; reading them from a
// directory is source/file's part, what they mean is translate's.
//
// A source collects decoded objects in a Builder and publishes what Build
// returns. An Objects never changes after that, and an object that did not
// change is the same pointer in the next Objects, so that readers find changes
// by comparing pointers:
//
//	b := source.NewBuilder()
//	for _, o := range decoded {
//		problems = append(problems, b.Add(o, origin)...)
//	}
//	if len(problems) == 0 {
//		current.Store(b.Build())
//	}
package source
