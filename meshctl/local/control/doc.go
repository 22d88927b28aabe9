// Package control is what meshctl and the supervisor of a local mesh say to
// each other, over two sockets in the state folder: HTTP with JSON on
// control.sock, and on exec.sock one message exchange per command that runs in
// a pod, with the caller's own standard input, output and error passed along.
//
// Both sockets are for the owner of the state folder only; whoever may open
// them may run anything in the mesh.
package control
