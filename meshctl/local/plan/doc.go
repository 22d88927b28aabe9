// Package plan decides what a local mesh looks like: which node a pod runs on,
// which addresses pods and services have, who is enrolled, what the hosts files
// say, and how the objects look once they have run through "scheduler" and
// "kubelet". It is pure: it reads a manifest.Set and the plan before, and
// returns the next plan. Nothing that goes on is moved or renumbered by a
// change to something else.
//
//	next, err := plan.Make(set, nodes, previous, newUID)
package plan
