// Package translate turns the objects of a mesh into the resources that node
// proxies subscribe to: istio.workload.Address for workloads and services, and
// istio.security.Authorization for policies. It is a pure function of the
// objects and the options: no clock, no I/O, no randomness, so that a command
// line can run the very same translation and golden files can hold it.
//
// Translate does it once. A Translator does it again and again and keeps what
// its inputs say cannot have changed: for the same object pointers it returns
// the same *Resource pointers. What it returns is always what Translate would,
// which a test checks on random histories.
//
//	t := translate.New(translate.Options{ClusterID: "Kubernetes"})
//	for objects := range changes {
//		mesh := t.Translate(objects)
//	}
//
// The meaning of the objects is Istio's ambient mode. What a node proxy cannot
// decide makes a policy stricter, never weaker: an ALLOW rule with a condition
// on HTTP is left out, in a DENY rule the condition counts as met; a Warning
// says so.
package translate
