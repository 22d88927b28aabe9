// Package kubetest runs a real Kubernetes API for a test: etcd, kube-apiserver
// and, when asked for, kube-controller-manager, as processes of their own on
// free loopback ports with a state that is thrown away. It has no nodes: pods
// are objects, whose status the test writes.
//
// The custom resources of the Gateway API and of Istio are installed. Several
// may run at once, in one process or in many. The processes end with Stop, at
// the test's end, and in any case with the process that started them.
//
//	func TestSomething(t *testing.T) {
//		api := kubetest.Start(t, kubetest.Options{})
//		clientset, err := kubernetes.NewForConfig(api.Config)
//		…
//
// A package with many tests pays the start once:
//
//	func TestMain(m *testing.M) { goleak.VerifyTestMain(kubetest.Package(m)) }
//
//	func TestSomething(t *testing.T) {
//		api := kubetest.Shared(t, kubetest.Options{})
//		namespace := api.Namespace(t, nil) // nobody else's
//		…
//
// The programs come from the folder that TULLE_CLUSTER_BIN names, or else from
// the cache of the test cluster, which `make cluster-up` fills.
package kubetest
