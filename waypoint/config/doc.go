// Package config reads and checks the settings of a waypoint, from flags and the
// environment. What a waypoint does with traffic is no setting: it comes from the
// control plane.
package config
