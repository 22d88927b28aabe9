// Package kube makes the node agent follow Kubernetes: pods of this node join and
// leave the mesh as labels, and the runtime's calls for new pods, say.
//
// A new pod comes through the CNI plugin (Add), before any of its processes
// runs. A pod that runs already, because its namespace was labelled later or
// because it slipped past the plugin, is found by its processes and joins
// without a restart. When the label goes, the annotation goes first, so that
// peers stop to open tunnels, and the pod after it. A pod that ended or is
// deleted goes when the runtime says so (DEL), or when none of its processes is
// left: until then it stays captured, whatever the API says of it.
//
// It owns the informers, which keep little of this node's pods and of the
// namespaces' labels, and the annotation ambient.istio.io/redirection. What it
// decides on is read from the caches to join, but from the API server to leave,
// and before a new pod is let past the mesh: a cache that lags must not cost a
// pod its capture. When the API server cannot be reached, pods in the mesh stay,
// and new pods wait.
//
// The annotation says enabled from the first acknowledgement of a proxy on; it
// stays so while a proxy restarts, because peers that took the pod for outside
// the mesh would send it plaintext. pending says that the pod is captured and no
// proxy has taken it yet.
package kube
