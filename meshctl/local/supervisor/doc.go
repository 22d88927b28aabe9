// Package supervisor is the long-lived half of the local mesh: scheduler,
// kubelet and kube-proxy of a cluster that is one process tree on one machine.
//
// It runs as PID 1 of process, mount and network namespaces of its own (and of
// a user namespace when it was not started by root), because then the kernel
// keeps its promises: whatever happens to it, its end is the end of every
// process, link, namespace and mount of the mesh. Everything that happens
// inside a namespace of the mesh is started from here: a Go program has threads
// from its first moment on, and a process with threads may not enter a user
// namespace later.
//
// It owns the state folder's content, the processes and the namespaces. What to
// run is package plan's to decide.
//
// Life cycle: Run prepares namespaces and components, answers on the two
// sockets of package control, and ends when asked to or when its context ends.
package supervisor
