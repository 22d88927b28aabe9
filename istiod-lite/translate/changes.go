package translate

// changes are the names that may differ between a mesh and the one that the
// same Translator returned before it. It numbers the meshes of a Translator, so
// that none holds on to the one before.
type changes struct {
	by                        *Translator // nil while nobody knows
	serial                    uint64
	addresses, authorizations []string
}

// Changes returns the names of the resources that may differ between since and
// m: new ones, gone ones, and those that are another *Resource. It is false when
// that is not known, because since is not what m's Translator returned just
// before m; then all must be compared.
func (m *Mesh) Changes(since *Mesh) (addresses, authorizations []string, ok bool) {
	if since == nil || m.changes.by == nil || m.changes.by != since.changes.by || m.changes.serial != since.changes.serial+1 {
		return nil, nil, false
	}
	return m.changes.addresses, m.changes.authorizations, true
}
