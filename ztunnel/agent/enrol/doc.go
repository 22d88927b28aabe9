// Package enrol keeps pods in the mesh and takes them out: the decisions of the
// node agent.
//
// It owns the list of enrolled pods, on disk too, and the order of steps, which
// makes it fail closed:
//
//	in    remember the pod → write the rules → tell the proxy → its ack → done
//	out   forget the pod → tell the proxy → its ack → remove the rules → done
//
// From the moment the rules are written, a pod's new connections reach the proxy
// or nothing. While no proxy has acknowledged the pod they are refused by the
// kernel, because nobody listens on the ports that the rules lead to. A proxy
// acknowledges only once it has the mesh's whole state. So a pod that runs only
// after Enrol returned never talks past the mesh, and one that ran before is cut
// off until the proxy has it, rather than left in plaintext.
//
// Leaving is not seamless yet: between the proxy's closing of its ports and the
// removal of the rules, some milliseconds, new connections of a running pod are
// refused, and captured connections that still drain break with the rules,
// because the translation of their addresses ends.
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
