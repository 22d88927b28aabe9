// Package api holds the contract between the binaries: .proto files and, beside
// each, the Go generated from it. Packages, names and field numbers are those
// of Istio ambient, so that foreign peers understand them on the wire; only what
// api/waypoint says to Tulle's own waypoints is Tulle's.
//
// make generate writes the Go anew with the pinned compiler and plugins of
// api/generate; a test in this package fails when the two have drifted apart.
package api
