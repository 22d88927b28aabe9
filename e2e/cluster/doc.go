// Package cluster is a real Kubernetes cluster of several nodes on this one
// machine: etcd, kube-apiserver, kube-controller-manager and kube-scheduler in a
// network namespace of their own, and nodes that are a network, mount, UTS, IPC
// and PID namespace each, with their own containerd, kubelet and kube-proxy.
//
// It owns the processes, namespaces, cgroups and files of the cluster and their
// teardown. It does not own what is installed into the cluster, apart from
// CoreDNS. The binaries come from package binaries, the images from package image.
//
// There is one cluster per machine at a time: the names of its network namespaces
// are fixed. Up starts it and returns; the cluster stays until Down, and every
// other method works on the cluster that another process started.
//
//	c := cluster.New(cluster.Config{Binaries: set, Output: os.Stdout})
//	if err := c.Up(ctx, topology.Topology{Nodes: 3, DualStack: true}); err != nil { … }
//	defer c.Down(ctx)
//	kubeconfig := c.Kubeconfig() // reaches the API server from the host
package cluster
