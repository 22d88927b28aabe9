package config

import (
	"flag"
	"slices"
	"strings"
)

// Waypoints say what the waypoints that the control plane runs are made of. The zero
// value runs none.
type Waypoints struct {
	// Image is that of their container. Empty leaves Gateways to others.
	Image string
	// ImagePullPolicy is Kubernetes' word: IfNotPresent, Always or Never.
	ImagePullPolicy string
	// ImagePullSecrets name Secrets, which must be in the namespaces of the Gateways.
	ImagePullSecrets []string
	// Defaults names a ConfigMap of the root namespace with what all waypoints have
	// in place of what they would; it need not be there. Empty means none.
	Defaults string
}

func (w *Waypoints) flags(fs *flag.FlagSet) {
	fs.StringVar(&w.Image, "waypoint-image", w.Image, "image of the waypoints to run for Gateways; empty runs none")
	fs.StringVar(&w.ImagePullPolicy, "waypoint-image-pull-policy", w.ImagePullPolicy, "IfNotPresent, Always or Never")
	fs.Var(&list{values: &w.ImagePullSecrets}, "waypoint-image-pull-secrets", "Secret of the waypoint's namespace to pull the image with; may be repeated or comma-separated")
	fs.StringVar(&w.Defaults, "waypoint-defaults", w.Defaults, "ConfigMap of --root-namespace that is laid over all waypoints; it need not be there")
}

func (w Waypoints) validate(kubernetes bool, fail func(string, ...any)) {
	if w.Image != "" && !kubernetes {
		fail("--waypoint-image %q: has no meaning without --kubernetes", w.Image)
	}
	if strings.ContainsAny(w.Image, " \t\n") {
		fail("--waypoint-image %q: must be an image's name", w.Image)
	}
	if policies := []string{"IfNotPresent", "Always", "Never"}; !slices.Contains(policies, w.ImagePullPolicy) {
		fail("--waypoint-image-pull-policy %q: must be one of %s", w.ImagePullPolicy, strings.Join(policies, ", "))
	}
	if strings.ContainsAny(w.Defaults, "/ \t\n") {
		fail("--waypoint-defaults %q: must be the name of a ConfigMap", w.Defaults)
	}
}
