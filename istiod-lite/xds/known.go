package xds

import "github.com/tulle-mesh/tulle/istiod-lite/snapshot"

// known is what a client holds: the version by name. Nearly always that is just
// the content of a set, so that a client costs no memory of its own; off lists
// where it differs. The zero value is a client that holds nothing.
type known struct {
	base *snapshot.Set
	off  map[string]string
}

// nothing stands in off for a resource of base that the client has not. The
// empty version would not do: there are clients that hold resources and do not
// know at which version. Who claims to hold this one fools itself only.
const nothing = "\x00"

// version returns what the client holds of name, and whether it does.
func (k *known) version(name string) (string, bool) {
	if v, ok := k.off[name]; ok {
		return v, v != nothing
	}
	if k.base != nil {
		if e := k.base.Entries[name]; e != nil {
			return e.Version, true
		}
	}
	return "", false
}

// set notes that the client holds this version of name.
func (k *known) set(name, version string) {
	if k.off == nil {
		k.off = map[string]string{}
	}
	k.off[name] = version
}

// drop notes that the client does not hold name.
func (k *known) drop(name string) {
	if k.base != nil && k.base.Entries[name] != nil {
		k.set(name, nothing)
	} else {
		delete(k.off, name)
	}
}

// names calls f for each name that the client holds.
func (k *known) names(f func(name string)) {
	for name, version := range k.off {
		if version != nothing {
			f(name)
		}
	}
	if k.base == nil {
		return
	}
	for name := range k.base.Entries {
		if _, ok := k.off[name]; !ok {
			f(name)
		}
	}
}

// len counts them.
func (k *known) len() int {
	n := 0
	if k.base != nil {
		n = len(k.base.Entries)
	}
	for name, version := range k.off {
		if k.base != nil && k.base.Entries[name] != nil {
			n--
		}
		if version != nothing {
			n++
		}
	}
	return n
}

// empty reports whether the client holds nothing.
func (k *known) empty() bool { return k.len() == 0 }

// is reports whether the client holds just what set does.
func (k *known) is(set *snapshot.Set) bool { return k.base == set && len(k.off) == 0 }

// keep forgets all that wanted does not ask for.
func (k *known) keep(wanted func(name string) bool) {
	kept := map[string]string{}
	k.names(func(name string) {
		if wanted(name) {
			kept[name], _ = k.version(name)
		}
	})
	*k = known{off: kept}
}
