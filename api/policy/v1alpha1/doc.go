// Package v1alpha1 holds the kinds of Tulle's own API group, policy.tulle.dev, as
// their authors write them. Their schemas are in manifests/chart/crds, what else is
// checked is in istiod-lite/source.
//
// Names follow the Gateway API's where it has a word, so that a kind can become one
// of its own by a rename.
package v1alpha1
