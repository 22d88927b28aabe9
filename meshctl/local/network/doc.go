// Package network makes the wires of the local mesh: a link that joins the
// nodes, a network namespace per node that routes for its pods, and one per
// pod.
//
//	lan (bridge; the control plane lives here)
//	 ├── node-1 ── pod, pod, …     each pod has a veth to its node and a
//	 └── node-2 ── pod, pod, …     /32 and /128 route there; nothing is bridged
//
// Pods are routed and not bridged: two pods of one node are then no neighbours
// whose packets could slip past the node's rules, and whether br_netfilter is
// on (it is, by default, in every fresh namespace) makes no difference.
//
// It owns links, addresses, routes and sysctls. Namespaces die with their
// holders, and veths with their namespaces, so nothing here needs cleaning up
// after a kill.
package network
