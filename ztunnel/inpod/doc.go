// Package inpod is the proxy's side of enrolment: it asks the node agent over
// ZDS which pods are enrolled, starts and drains a proxy for each, and makes
// sockets inside the pods' network namespaces.
//
// It owns the connection to the agent, the life of each pod's proxy and the
// pod's network namespace. What a proxy does is the business of whoever gives
// Config.Start. Rules that bring connections to the proxy's ports are written
// by the agent (ztunnel/redirect) before it tells us of a pod.
//
// Life cycle: Client.Run connects, and again whenever the connection breaks,
// with back-off; proxies go on meanwhile. After each connect the agent lists
// the pods, and when its list is complete, pods that are not on it are drained.
// Run ends with its context, after every proxy was drained.
//
//	client, err := inpod.New(inpod.Config{Socket: path, Start: start, …})
//	err = client.Run(ctx)
//
//	func start(ctx context.Context, pod inpod.Pod) (inpod.Proxy, error) {
//		listeners, err := inpod.Listen(pod.NS, 15001)
//		…
//	}
package inpod
