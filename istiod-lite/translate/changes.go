package translate

// changes are the names that may differ between a mesh and the one that the
// same Translator returned before it. It numbers the meshes of a Translator, so
// that none holds on to the one before.
type changes struct {
	by                                            *Translator // nil while nobody knows
	serial                                        uint64
	addresses, authorizations, services, policies []string
	authentications, destinations, rateLimits     []string
	telemetries                                   []string
}

// Changed are the names of the resources that may differ between two meshes: new
// ones, gone ones, and those that are another *Resource.
type Changed struct {
	Addresses, Authorizations          []string
	WaypointServices, WaypointPolicies []string
	WaypointAuthentications            []string
	WaypointDestinations               []string
	WaypointRateLimits                 []string
	WaypointTelemetries                []string
}

// Changes returns what may differ between since and m. It is false when that is
// not known, because since is not what m's Translator returned just before m; then
// all must be compared.
func (m *Mesh) Changes(since *Mesh) (Changed, bool) {
	if since == nil || m.changes.by == nil || m.changes.by != since.changes.by || m.changes.serial != since.changes.serial+1 {
		return Changed{}, false
	}
	return Changed{
		Addresses: m.changes.addresses, Authorizations: m.changes.authorizations,
		WaypointServices: m.changes.services, WaypointPolicies: m.changes.policies,
		WaypointAuthentications: m.changes.authentications, WaypointDestinations: m.changes.destinations,
		WaypointRateLimits: m.changes.rateLimits, WaypointTelemetries: m.changes.telemetries,
	}, true
}
