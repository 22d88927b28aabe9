// Package routes tests what becomes of requests under routes as their authors write
// them: the objects go through the control plane's translation, and what that says
// through the waypoints' router. Both are pure, so that nothing has to run.
//
// Each file of testdata has objects and, below a line "cases:", requests and what
// becomes of them. Those whose names begin with Mesh, HTTPRoute or GRPCRoute are what
// gateway-api's conformance suite, v1.6.3, asks in its tests of these names.
package routes
