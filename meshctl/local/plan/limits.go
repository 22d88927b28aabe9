package plan

const (
	// MaxNodes bounds the nodes of one local mesh: each costs a ztunnel and an
	// agent. It also keeps the third byte of the pod ranges free of collisions.
	MaxNodes = 32
	// maxPodsPerNode is what a /24 holds without network, gateway and broadcast.
	maxPodsPerNode = 253
	// maxServices is what the service range 10.96.0.0/16 holds, roughly.
	maxServices = 65000
	// maxReplicas bounds one Deployment, against a slip of the finger.
	maxReplicas = 200
)
