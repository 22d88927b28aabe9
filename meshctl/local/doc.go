// Package local is meshctl's half of the local mesh: it starts the supervisor of
// a state folder, asks it for things, and cleans up after it. What the
// supervisor does is in package supervisor; how a mesh is laid out, in plan.
//
//	mesh, err := local.Open(stateDir)          // nothing runs: ErrNotRunning
//	mesh, err := local.Start(ctx, settings)    // runs already: just opens it
package local
