// The cluster of the end-to-end tests, and the tests that run on it. A module of
// its own: what it needs stays out of the product's module graph.
module github.com/tulle-mesh/tulle/e2e/cluster

go 1.26.0

require (
	github.com/spf13/cobra v1.10.2
	github.com/tulle-mesh/tulle v0.0.0
	github.com/vishvananda/netlink v1.3.1
	github.com/vishvananda/netns v0.0.5
	golang.org/x/sys v0.49.0
)

require (
	github.com/inconshreveable/mousetrap v1.1.0 // indirect
	github.com/spf13/pflag v1.0.10 // indirect
)

replace github.com/tulle-mesh/tulle => ../..
