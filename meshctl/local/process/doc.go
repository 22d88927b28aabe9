// Package process starts the programs of the local mesh in the namespaces of
// their pod and waits for them.
//
// A pod's program starts in three steps: the supervisor forks on a thread that
// is inside the pod's network namespace, with mount, host name and process
// namespaces of its own; there this same binary runs once more as a shim
// (RunShim), puts the pod's /etc/hosts, /etc/resolv.conf and /proc in place and
// becomes the program by exec. The program is then PID 1 of the pod's
// container, as it would be in Kubernetes: killing it kills all that it
// started, and signals that it does not handle do nothing to it.
//
// The Reaper is the only one who waits for children: the supervisor is PID 1 of
// its own process namespace and inherits every orphan.
package process
