package translate

import "maps"

// output is what a Translator has made so far.
type output struct {
	addresses, authorizations outputSet
	services, policies        outputSet // of waypoints
	authentications           outputSet
	destinations, rateLimits  outputSet
	telemetries               outputSet
	warnings                  []Warning
	warned                    bool // a part's warnings changed
	serial                    uint64
}

func newOutput() output {
	return output{
		addresses: newOutputSet(), authorizations: newOutputSet(), services: newOutputSet(), policies: newOutputSet(), authentications: newOutputSet(),
		destinations: newOutputSet(), rateLimits: newOutputSet(), telemetries: newOutputSet(),
	}
}

// mesh seals what there is.
func (o *output) mesh(t *Translator) *Mesh {
	if o.warned {
		o.warnings, o.warned = t.warnings(), false
	}
	o.serial++
	m := &Mesh{Warnings: o.warnings, changes: changes{by: t, serial: o.serial}}
	m.Addresses, m.changes.addresses = o.addresses.seal()
	m.Authorizations, m.changes.authorizations = o.authorizations.seal()
	m.WaypointServices, m.changes.services = o.services.seal()
	m.WaypointPolicies, m.changes.policies = o.policies.seal()
	m.WaypointAuthentications, m.changes.authentications = o.authentications.seal()
	m.WaypointDestinations, m.changes.destinations = o.destinations.seal()
	m.WaypointRateLimits, m.changes.rateLimits = o.rateLimits.seal()
	m.WaypointTelemetries, m.changes.telemetries = o.telemetries.seal()
	return m
}

// outputSet is the resources of one type. Its map belongs to the last mesh and
// is copied before the first change.
type outputSet struct {
	sealed  map[string]*Resource
	current map[string]*Resource // nil while nothing has changed
	changed map[string]struct{}
}

func newOutputSet() outputSet {
	return outputSet{sealed: map[string]*Resource{}, changed: map[string]struct{}{}}
}

// set puts a resource under name, or takes out what is there when r is nil. One
// that says the same stays.
func (s *outputSet) set(name string, r *Resource) {
	m := s.current
	if m == nil {
		m = s.sealed
	}
	if old := m[name]; sameBody(old, r) {
		return
	}
	if s.current == nil {
		s.current = maps.Clone(s.sealed)
	}
	if r == nil {
		delete(s.current, name)
	} else {
		s.current[name] = r
	}
	s.changed[name] = struct{}{}
}

// newest returns the resources as they are, which the caller must not change.
func (s *outputSet) newest() map[string]*Resource {
	if s.current != nil {
		return s.current
	}
	return s.sealed
}

// seal returns the resources and the names that may differ from the last seal.
func (s *outputSet) seal() (map[string]*Resource, []string) {
	if s.current == nil {
		return s.sealed, nil
	}
	names := make([]string, 0, len(s.changed))
	for name := range s.changed {
		names = append(names, name)
	}
	clear(s.changed)
	s.sealed, s.current = s.current, nil
	return s.sealed, names
}
