// Package suite holds the tests that need a real Kubernetes cluster: the mesh is
// installed once, by meshctl as its users do it, and all tests share it, each in
// a namespace of its own. What disturbs the cluster runs last, one after the other.
//
// During all of it PostgreSQL runs under pgbench, and a capture on the network
// between the nodes looks for the secrets that enrolled pods send.
//
// `make e2e` starts a cluster from nothing, runs the tests and takes it down. While
// writing tests, TULLE_E2E_RUNNING=1 uses the cluster and the mesh that are there:
//
//	make cluster-up && bin/meshctl install
//	TULLE_E2E_RUNNING=1 go -C e2e/cluster test ./suite -v -run 'TestMesh/policy'
package suite
