// Package app wires a waypoint together and runs it from start to drain.
package app
