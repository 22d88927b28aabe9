// Package zds is the wire of the enrolment protocol between the node agent and
// the node proxy, Istio's ZDS: one protobuf message per datagram on a
// SOCK_SEQPACKET unix socket, and a pod's network namespace beside it as a
// descriptor in SCM_RIGHTS.
//
// It owns encoding, limits, the rules about descriptors and their life: what
// arrives where none belongs is closed before the error is returned. It knows
// no order of messages: which follows which is the matter of ztunnel/inpod
// (proxy) and ztunnel/agent/server (agent).
//
// The agent listens, the proxy dials. On a connection the proxy speaks first:
//
//	proxy → agent   Hello
//	agent → proxy   Add or Keep, one for each pod; the proxy answers each by an ack
//	agent → proxy   SnapshotSent; ack
//	agent → proxy   Add, Del as pods come and go; ack after ack
//
// A Conn is for one reader and one writer at a time; Close may be called
// meanwhile and ends both.
package zds
