// Package enrol keeps pods in the mesh and takes them out: the decisions of the
// node agent.
//
// It owns the list of enrolled pods, on disk too, and the order of steps:
//
//	new      remember the pod → write the rules → tell the proxy → its ack → done
//	running  remember the pod → tell the proxy → its ack → write the rules → done
//	out      empty the rules → tell the proxy, which drains → … → remove the rules
//	deleted  tell the proxy → remove the rules → done
//
// From the moment the rules are written, a pod's new connections reach the proxy
// or nothing. While no proxy has acknowledged the pod they are refused by the
// kernel, because nobody listens on the ports that the rules lead to. A proxy
// acknowledges only once it has the mesh's whole state. So a pod that starts only
// after Enrol returned never talks past the mesh. One that was running before
// (Pod.Running) loses no connection: the proxy listens before the rules lead to
// it, and until then the pod talks as it did. It counts as a member only when
// Enrol returned; from its first capture on it fails closed like any other.
//
// A running pod leaves without losing one either. Its new connections pass the
// proxy by at once, while the kernel goes on to translate the addresses of those
// that were captured (redirect.Release); the tables for that go when the proxy has
// no socket left in the pod. Meanwhile the pod may be enrolled again. Peers must
// have heard before that the pod leaves: they are not refused until the proxy is
// told, and find nobody on its tunnel port then.
//
// What an agent remembers survives it: after a restart the rules are compared
// and repaired and the proxy gets the list again. When the agent ends, rules
// stay. Rules are compared every few seconds as well; somebody who flushes
// them is found out, and the pod captured again.
//
// Connections that are older than the enrolment go on, in plaintext, because
// their addresses were decided when they began. They are counted and listed,
// and where a pod is strict they are ended after 30 s. UDP is not captured.
package enrol
