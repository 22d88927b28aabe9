// Package kube is meshctl's connection to a Kubernetes cluster: which cluster is
// meant, the clients for it, connections into its pods, and errors in words that
// say what to do. What is asked of the cluster is up to the commands.
//
//	flags := kube.Flags{}
//	flags.Add(cmd.Flags())
//	...
//	cluster, err := kube.Connect(ctx, flags)
//	pods, err := cluster.Kubernetes.CoreV1().Pods("shop").List(ctx, metav1.ListOptions{})
//	if err != nil {
//		return cluster.Explain(err)
//	}
//	admin := cluster.PodHTTP("istio-system", "ztunnel-x7k2p", 15000)
//	defer admin.CloseIdleConnections()
//	res, err := admin.Get("http://localhost:15000/config_dump")
//
// A Client is safe for concurrent use and holds no goroutine; connections into
// pods belong to who dials them.
package kube
