package control

import "time"

// Status is the whole mesh as `meshctl local status -o json` prints it.
type Status struct {
	Name     string    `json:"name"`
	StateDir string    `json:"stateDir"`
	Version  string    `json:"version"`
	Started  time.Time `json:"started"`
	// SupervisorPID is the process that holds all of it.
	SupervisorPID int  `json:"supervisorPID,omitempty"`
	Rootless      bool `json:"rootless"`
	// Mesh is false when the mesh runs without control plane and proxies.
	Mesh bool `json:"mesh"`
	// BinDir, TrustDomain, ZtunnelArgs and LogLevel are what the mesh was started
	// with.
	BinDir      string   `json:"binDir"`
	TrustDomain string   `json:"trustDomain"`
	ZtunnelArgs []string `json:"ztunnelArgs,omitempty"`
	LogLevel    string   `json:"logLevel,omitempty"`
	// ControlPlane is istiod-lite; nil without mesh.
	ControlPlane *Component `json:"controlPlane,omitempty"`
	Nodes        []Node     `json:"nodes"`
	Pods         []Pod      `json:"pods"`
	Services     []Service  `json:"services"`
	// ConfigErrors are the objects that the control plane refused.
	ConfigErrors []string `json:"configErrors,omitempty"`
	// Notes are limits that everybody who looks should know.
	Notes []string `json:"notes,omitempty"`
}

// Component is one program of the mesh itself.
type Component struct {
	Name string `json:"name"`
	// State is starting, ready, not ready, or restarting.
	State string `json:"state"`
	// Reason says what State waits for.
	Reason string `json:"reason,omitempty"`
	// PID is its number inside the mesh, HostPID the one outside.
	PID      int       `json:"pid,omitempty"`
	HostPID  int       `json:"hostPID,omitempty"`
	Started  time.Time `json:"started,omitzero"`
	Restarts int       `json:"restarts"`
	// CPUSeconds and ResidentBytes are what the process uses.
	CPUSeconds    float64 `json:"cpuSeconds"`
	ResidentBytes int64   `json:"residentBytes"`
}

// Node is one node of the mesh.
type Node struct {
	Name       string      `json:"name"`
	Addresses  []string    `json:"addresses"`
	Components []Component `json:"components,omitempty"`
}

// Pod is one pod of the mesh.
type Pod struct {
	Namespace string   `json:"namespace"`
	Name      string   `json:"name"`
	UID       string   `json:"uid"`
	Node      string   `json:"node"`
	IPs       []string `json:"ips"`
	Phase     string   `json:"phase"`
	Ready     bool     `json:"ready"`
	// Reason says why the pod is not ready.
	Reason string `json:"reason,omitempty"`
	// Mesh is out, pending, in or leaving.
	Mesh string `json:"mesh"`
	// Identity is its SPIFFE ID when it is in the mesh.
	Identity string `json:"identity,omitempty"`
	// Waypoint is the name of the Gateway whose waypoint it runs, if it does.
	Waypoint string `json:"waypoint,omitempty"`
	// OlderConnections began before the pod was in the mesh and go on in
	// plaintext.
	OlderConnections int         `json:"olderConnections"`
	Containers       []Container `json:"containers"`
}

// Container is one running command of a pod.
type Container struct {
	Name string `json:"name"`
	// PID is its number inside the mesh, HostPID the one outside.
	PID      int       `json:"pid,omitempty"`
	HostPID  int       `json:"hostPID,omitempty"`
	Started  time.Time `json:"started,omitzero"`
	Restarts int       `json:"restarts"`
	// LastExit tells how it ended the last time.
	LastExit string `json:"lastExit,omitempty"`
}

// Service is one service of the mesh.
type Service struct {
	Namespace string   `json:"namespace"`
	Name      string   `json:"name"`
	IPs       []string `json:"ips"`
	Ports     []string `json:"ports"`
	Ready     int      `json:"readyEndpoints"`
}

// Event is one line of progress while something is done; the last one of an
// answer has Done or Error set.
type Event struct {
	Text  string `json:"text,omitempty"`
	Done  bool   `json:"done,omitempty"`
	Error string `json:"error,omitempty"`
	// Changed counts the objects that were created, changed or removed.
	Changed int `json:"changed,omitempty"`
}

// Apply asks the supervisor to make the mesh as the documents say.
type Apply struct {
	Documents []Document `json:"documents"`
	Nodes     int        `json:"nodes"`
	// WaitSeconds bounds how long to wait until everything runs; 0 returns as
	// soon as it was started.
	WaitSeconds float64 `json:"waitSeconds"`
}

// Document mirrors manifest.Document.
type Document struct {
	File  string `json:"file"`
	Index int    `json:"index"`
	Dir   string `json:"dir"`
	Layer int    `json:"layer"`
	JSON  []byte `json:"json"`
}

// Settings are what a supervisor is started with.
type Settings struct {
	Name     string `json:"name"`
	StateDir string `json:"stateDir"`
	// BinDir holds istiod-lite, ztunnel and tulle-agent, and comes first in the
	// PATH of pods.
	BinDir string `json:"binDir"`
	Nodes  int    `json:"nodes"`
	// NoMesh leaves out control plane, agents and proxies: pods, services and
	// names only.
	NoMesh      bool   `json:"noMesh,omitempty"`
	TrustDomain string `json:"trustDomain"`
	// ZtunnelArgs are given to every ztunnel after the supervisor's own.
	ZtunnelArgs []string `json:"ztunnelArgs,omitempty"`
	// LogLevel is given to the components; empty leaves their default.
	LogLevel string `json:"logLevel,omitempty"`
	Rootless bool   `json:"rootless,omitempty"`
	Version  string `json:"version"`
}
