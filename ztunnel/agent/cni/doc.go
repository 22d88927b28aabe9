// Package cni is the CNI plugin of the mesh: the last one of the node's chain,
// which gives a new pod to the node agent before any of its processes runs.
//
// The plugin is the node agent's own program called under another name or with
// CNI_COMMAND set. It decides nothing but one thing: pods of the namespaces that
// its configuration excludes pass without asking, so that the mesh's own
// components and the cluster's DNS can start while there is no agent. For all
// others it asks the agent on its unix socket, and ADD returns when the agent
// says that the pod is none of the mesh, or that its ztunnel has acknowledged
// it. An agent that cannot be reached is an error, at once: the kubelet tries
// again, and a pod that may belong to the mesh does not start outside of it.
//
// The result of the plugins before is passed on as it came. DEL always succeeds:
// an agent that did not hear of it finds out from the API server. STATUS always
// succeeds too: a node that reports its network as not ready because the agent
// restarts would lose all of its pods, also those that never were in the mesh.
// GC has nothing to do, because the agent keeps no attachments.
//
// It owns the plugin's configuration and the form of its requests; what the
// agent does with them is in ztunnel/agent/kube.
package cni
