// Package mesh is a running mesh as meshctl's commands see it, whether it runs in
// a Kubernetes cluster or as local mesh: its node proxies and control planes with
// their admin interfaces, its pods and services. What is made of the answers is up
// to the commands.
//
//	m := mesh.InCluster(client, "istio-system")
//	proxies, err := m.Components(ctx, mesh.Ztunnel)
//	for _, p := range proxies {
//		dump, err := p.Dump(ctx)
//	}
//
// A Mesh is safe for concurrent use and holds no goroutine; every question is
// bounded by limits.go.
package mesh
