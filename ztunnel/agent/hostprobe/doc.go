// Package hostprobe lets kubelet's probes reach pods of the mesh that take no
// plaintext: in the node's own network namespace it gives connections of the
// kubelet to the node's enrolled pods a source address of their own, and the
// rules in the pods let that source pass.
//
// It owns the nftables table tulle-agent (family inet) of the node's namespace:
// two sets of pod addresses, one rule for each family that translates sources,
// and one each that drops the probe addresses where they come in from outside,
// so that nobody but the node itself can use them. It writes by netlink, and
// compares what is there every few seconds.
//
// What is translated: the first packet of a TCP connection that a process in
// the node's network namespace with the kubelet's user id opens to an address of
// the set itself. Not translated are forwarded packets (they have no socket
// here), connections to a Service that kube-proxy led to a pod (their
// destination was translated), and those of other users. What cannot be told
// apart is another process of the same user in the node's network: a pod with
// hostNetwork that runs as root reaches the node's pods as the kubelet does.
//
//	probes, err := hostprobe.New(hostprobe.Config{})
//	err = probes.Set(uid, addresses)  // before the pod is captured
//	go probes.Run(ctx)
package hostprobe
