// Package conformance runs the Gateway API's conformance suite against the mesh:
// the profiles MESH-HTTP and MESH-GRPC with every extended feature of a mesh, and
// besides the tests that the suite counts for no profile of a mesh.
//
// It owns what the suite finds when it begins: namespaces that are members of the
// mesh, with a waypoint before their services. The suite is the published one; its
// tests, manifests and report are not touched.
//
// `make conformance` starts a cluster, installs the mesh, runs it and writes the
// report. On a cluster that is up and has the mesh:
//
//	KUBECONFIG=… TULLE_E2E_RUNNING=1 go test . -count=1 -v -args -report-output=$PWD/report.yaml -version=v1.0.0
//
// The suite's own flags hold, -run-test above all; the tests are skipped without
// TULLE_E2E_RUNNING=1.
package conformance
