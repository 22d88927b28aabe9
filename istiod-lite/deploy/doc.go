// Package deploy makes waypoints run in a Kubernetes cluster: for each Gateway of a
// class of waypoints it keeps a ServiceAccount, a Deployment, a Service, a
// PodDisruptionBudget and, when asked for, a HorizontalPodAutoscaler, and it makes the
// GatewayClass istio-waypoint.
//
// What it makes belongs to the Gateway, so that the cluster's garbage collector takes
// it away after it. What it did not make it never touches: an object of that name that
// is somebody else's is a problem, which [Controller.Outcome] tells and the Gateway's
// conditions show. Gateways that name the address of a proxy of their own are left
// alone. It reads no traffic configuration; pods get that over xDS.
//
// Only the leading replica runs it:
//
//	c, err := deploy.New(deploy.Config{Dynamic: client, Metadata: metadata, Settings: settings, Options: options})
//	pipeline.observe = c.Observe // every new state
//	c.Run(ctx)                   // until another replica leads
package deploy
