// Package jsonfault finds the places of a JSON document where a value does not fit the
// type that it is to be decoded into, and says what stands there and what is wanted.
// encoding/json and protojson name neither the whole path nor more than the first
// mistake; they stay the ones who decide. It decodes nothing itself:
//
//	if err := json.Unmarshal(raw, obj); err != nil {
//		faults := jsonfault.Value(raw, obj) // empty when only the library knows
//	}
//	faults := jsonfault.Message(spec, desc, "spec")
//
// Both take time in proportion to the document. Whoever calls bounds its size and how
// deep it nests.
package jsonfault
