package source

const (
	// MeshConfigMap is the ConfigMap of the root namespace that holds the mesh's
	// settings, as Istio calls it.
	MeshConfigMap = "istio"
	// CAKey is the key of a ConfigMap under which the Gateway API has certificates.
	CAKey = "ca.crt"
)
