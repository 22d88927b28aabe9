// Package mesh holds the end-to-end tests of the mesh on one machine: the real
// binaries, started by meshctl local, with real programs as pods. It has tests
// only; they need root.
package mesh
