// Package manifests is what a mesh consists of in Kubernetes: a Helm chart and the
// definitions of the kinds that it reads, both embedded in meshctl.
//
// chart is the one source. Helm installs it as it is; meshctl renders the same
// templates with [Render]; kustomize holds what they give with the default values,
// written by `go generate ./manifests`. A test compares the three.
//
// The package reads and renders; what talks to a cluster is meshctl/install.
//
//	values, err := manifests.Default()
//	objects, err := manifests.Render(manifests.Release{Namespace: "istio-system", Version: "1.0.0"}, values)
package manifests

//go:generate go run ./generate
