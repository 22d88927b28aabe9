package snapshot

import (
	"errors"

	"github.com/tulle-mesh/tulle/istiod-lite/translate"
)

// The resource types that proxies subscribe to.
const (
	AddressType       = "type.googleapis.com/istio.workload.Address"
	AuthorizationType = "type.googleapis.com/istio.security.Authorization"
	// Those of waypoints, of which each subscribes to what has its alias.
	WaypointServiceType        = "type.googleapis.com/tulle.waypoint.Service"
	WaypointPolicyType         = "type.googleapis.com/tulle.waypoint.Policy"
	WaypointAuthenticationType = "type.googleapis.com/tulle.waypoint.Authentication"
	WaypointDestinationType    = "type.googleapis.com/tulle.waypoint.Destination"
	WaypointRateLimitType      = "type.googleapis.com/tulle.waypoint.RateLimit"
	WaypointTelemetryType      = "type.googleapis.com/tulle.waypoint.Telemetry"
)

// Types lists them.
func Types() []string {
	return []string{
		AddressType, AuthorizationType, WaypointServiceType, WaypointPolicyType, WaypointAuthenticationType,
		WaypointDestinationType, WaypointRateLimitType, WaypointTelemetryType,
	}
}

// Scoped reports whether the resources of a type belong to some subscribers and to
// no others, who know them by an alias of theirs: nobody can ask for all.
func Scoped(url string) bool {
	return url != AddressType && url != AuthorizationType
}

// Snapshot is the whole mesh at one moment. It is immutable.
type Snapshot struct {
	// Serial counts snapshots from 1; it starts again with the process.
	Serial uint64
	// Sets holds one Set for each of Types. A type of which nothing changed has
	// the same Set as in the snapshot before.
	Sets map[string]*Set

	mesh *translate.Mesh // what it was made of
}

// Change is the difference between a snapshot and the one before it.
type Change struct {
	// Deltas by type; a type without differences is left out.
	Deltas map[string][]Delta
}

// Empty reports whether nothing differs.
func (c Change) Empty() bool { return len(c.Deltas) == 0 }

// Delta is one resource that differs. Old is nil for a new one, New for one
// that is gone.
type Delta struct {
	Name     string
	Old, New *Entry
}

// Next packs mesh and compares it with prev, which is nil for the first. When
// nothing differs the Change is empty and the Serial stays. The error names the
// resources whose bodies cannot be packed: each stays as it was in prev, and the
// snapshot has all the others. What it costs is the copy of a map when mesh tells
// what changed since prev's, else a comparison of all.
func Next(prev *Snapshot, mesh *translate.Mesh) (*Snapshot, Change, error) {
	change := Change{Deltas: map[string][]Delta{}}
	next := &Snapshot{Serial: 1, Sets: map[string]*Set{}, mesh: mesh}
	var names map[string][]string
	var failed []error
	known := false
	if prev != nil {
		next.Serial = prev.Serial + 1
		names, known = changes(prev.mesh, mesh)
	}
	for url, resources := range map[string]map[string]*translate.Resource{
		AddressType:                mesh.Addresses,
		AuthorizationType:          mesh.Authorizations,
		WaypointServiceType:        mesh.WaypointServices,
		WaypointPolicyType:         mesh.WaypointPolicies,
		WaypointAuthenticationType: mesh.WaypointAuthentications,
		WaypointDestinationType:    mesh.WaypointDestinations,
		WaypointRateLimitType:      mesh.WaypointRateLimits,
		WaypointTelemetryType:      mesh.WaypointTelemetries,
	} {
		before := &Set{Type: url, Entries: map[string]*Entry{}}
		if prev != nil {
			before = prev.Sets[url]
		}
		differ := names[url]
		if !known {
			differ = differing(before, resources)
		}
		set, deltas, errs := nextSet(before, resources, differ)
		failed = append(failed, errs...)
		next.Sets[url] = set
		if len(deltas) > 0 {
			change.Deltas[url] = deltas
		}
	}
	if prev != nil && change.Empty() {
		next.Serial = prev.Serial // the same content, held by newer objects
	}
	return next, change, errors.Join(failed...)
}

// changes asks mesh what may differ from since, by type.
func changes(since, mesh *translate.Mesh) (map[string][]string, bool) {
	changed, ok := mesh.Changes(since)
	return map[string][]string{
		AddressType: changed.Addresses, AuthorizationType: changed.Authorizations,
		WaypointServiceType: changed.WaypointServices, WaypointPolicyType: changed.WaypointPolicies,
		WaypointAuthenticationType: changed.WaypointAuthentications, WaypointDestinationType: changed.WaypointDestinations,
		WaypointRateLimitType: changed.WaypointRateLimits, WaypointTelemetryType: changed.WaypointTelemetries,
	}, ok
}
