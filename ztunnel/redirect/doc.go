// Package redirect writes the rules by which a pod's TCP connections come to
// the node proxy: nftables in the pod's own network namespace, and the policy
// route for connections that the proxy opens with the client's address.
//
// It owns the tables istio-ambient-nat, -mangle and -raw (family inet, so that
// one set serves IPv4 and IPv6), routing table 100 and the ip rule of
// preference 32764 there, and the settings nf_conntrack_tcp_loose and
// tcp_migrate_req. It speaks
// netlink and needs no nft binary. It does not know whether a proxy listens:
// with rules in place and nobody on the ports, connections are refused, and
// that is the point.
//
//	if err := redirect.Apply(ns, redirect.Config{}); err != nil { … }  // captured from here on
//	diffs, err := redirect.Verify(ns, redirect.Config{})               // none, until somebody flushes
//	err = redirect.Release(ns, redirect.Config{})                      // new connections pass by, captured ones go on
//	err = redirect.Remove(ns)                                          // nothing is left
//
// What is captured. TCP to anywhere but loopback leaves the pod through port
// 15001; TCP that enters the pod comes to port 15006, except to 15008, where
// the proxy takes tunnels itself. What carries the proxy's mark passes. UDP and
// other protocols pass untouched. A program in the pod that may set marks
// (CAP_NET_ADMIN in the pod's network namespace) can step around its own
// outbound capture; it cannot step around the inbound capture of others.
//
// Connections older than the rules. Address translation is decided with a
// connection's first packet. The redirecting rules ask for a SYN, and picking
// up connections in their middle is switched off, because otherwise connection
// tracking, which often starts with these rules, would take the next packet of
// an old connection for the first one of a new connection, redirect it and so
// reset it; and a stray ACK could prepare an entry by which a later SYN passes
// unredirected. So old connections go on as they were. Package
// ztunnel/agent/sockdiag finds and ends them where policy asks for that.
//
// All of a change to the rules is one transaction of the kernel: there is no
// moment in which only part of them or none is in force.
package redirect
