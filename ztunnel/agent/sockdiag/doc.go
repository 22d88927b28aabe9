// Package sockdiag lists and ends the TCP connections of a network namespace
// through the kernel's sock_diag interface (linux/inet_diag.h), and tells those
// that go past the proxy.
//
// It owns the encoding of the interface and the rule by which a connection
// counts as captured. When and why connections are ended is the business of
// ztunnel/agent/enrol.
package sockdiag
