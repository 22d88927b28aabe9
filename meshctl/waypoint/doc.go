// Package waypoint makes, lists and removes the Gateways of waypoints in a cluster,
// as istioctl's commands of that name do. What runs for a Gateway is the control
// plane's business; this package waits for it to say so.
//
//	w, err := waypoint.Apply(ctx, client, waypoint.Options{Namespace: "shop", Enroll: true})
package waypoint
