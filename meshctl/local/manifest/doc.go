// Package manifest reads the Kubernetes YAML that a user gives to the local
// mesh and decodes it strictly: a field that the object's type does not have, a
// value of the wrong type or the same object twice is an error that names
// file, document, object and field, because a misspelt field that is silently
// dropped becomes a policy that does not protect.
//
// It knows which kinds the local mesh understands and what of a Pod cannot be
// honoured when its containers run as plain processes. It decides nothing:
// where a pod runs and which addresses it gets is package plan's.
//
//	set, err := manifest.Load([]string{"examples/shop"})
package manifest
