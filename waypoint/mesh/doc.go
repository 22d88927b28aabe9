// Package mesh is the mesh as one waypoint sees it: the services that it stands
// before, with their routes and policies, and the backends that their requests go to.
//
// It takes updates from the control plane, asks it for the services that they lead to,
// and keeps backends in step, in place (docs/decisions/0018). Who serves a request looks
// things up without a lock, in a state that does not change under him.
package mesh
