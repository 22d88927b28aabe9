package deploy

import "github.com/tulle-mesh/tulle/istiod-lite/config"

// Settings are what all waypoints of a mesh have in common, istiod-lite's own flags.
type Settings struct {
	config.Waypoints
	// XDSAddress is where waypoints find the control plane.
	XDSAddress string
	// LogLevel and LogFormat are those of waypoints that do not say otherwise.
	LogLevel, LogFormat string
	// RootNamespace has the ConfigMap of defaults.
	RootNamespace string
}
