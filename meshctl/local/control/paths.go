package control

import "path/filepath"

// StateDir is the folder of one local mesh.
type StateDir string

func (d StateDir) path(names ...string) string {
	return filepath.Join(append([]string{string(d)}, names...)...)
}

// Control is the socket of the HTTP interface.
func (d StateDir) Control() string { return d.path("control.sock") }

// Exec is the socket on which commands are run.
func (d StateDir) Exec() string { return d.path("exec.sock") }

// Marker tells that the folder is a mesh's: what a mesh makes there has plain
// names, and nobody's own "config" may be taken for it.
func (d StateDir) Marker() string { return d.path(".tulle-local-mesh") }

// Lock is held by the living supervisor.
func (d StateDir) Lock() string { return d.path("lock") }

// PIDFile has the supervisor's process number as its starter saw it.
func (d StateDir) PIDFile() string { return d.path("supervisor.pid") }

// Config is the folder that the control plane watches.
func (d StateDir) Config() string { return d.path("config") }

// Authority is where the control plane keeps its keys.
func (d StateDir) Authority() string { return d.path("istiod-lite") }

// Keys is where the supervisor keeps the key that signs the nodes' tokens.
func (d StateDir) Keys() string { return d.path("keys") }

// Logs is the folder of all logs.
func (d StateDir) Logs() string { return d.path("logs") }

// Log is the log of a component ("node-1/ztunnel") or of a pod's container.
func (d StateDir) Log(names ...string) string {
	return d.path(append([]string{"logs"}, names...)...) + ".log"
}

// Node is the folder of one node: sockets, token, state of its agent.
func (d StateDir) Node(name string, more ...string) string {
	return d.path(append([]string{"nodes", name}, more...)...)
}

// Pods is the folder of what pods see as theirs: hosts files.
func (d StateDir) Pods(names ...string) string { return d.path(append([]string{"pods"}, names...)...) }

// Namespaces is where the supervisor mounts the pods' network namespaces; the
// mounts exist in its own mount namespace only.
func (d StateDir) Namespaces(names ...string) string {
	return d.path(append([]string{"netns"}, names...)...)
}

// Entries are all names that a mesh makes in its folder; `down` removes these
// and nothing else.
func (d StateDir) Entries() []string {
	return []string{".tulle-local-mesh", "control.sock", "exec.sock", "lock", "supervisor.pid", "config", "istiod-lite",
		"keys", "logs", "nodes", "pods", "netns"}
}
