// Package machine is a node from the inside: what its PID 1 does. It makes the
// node's view of the file system, starts containerd, the kubelet and kube-proxy
// and starts them again when they end, collects orphans, and takes commands on a
// unix socket.
//
// The node shares the host's root file system, read and write, apart from the
// places that belong to a node: those are directories of the node's own, which
// survive a restart as a disk does, and /run, which does not.
//
// Its life is that of its process: killing it ends every process of the node at
// once, as pulling the plug does.
package machine
