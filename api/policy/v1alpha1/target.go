package v1alpha1

// TargetRef names what a policy is attached to, in the policy's own namespace.
type TargetRef struct {
	// Group is empty for Kubernetes's own kinds.
	Group string `json:"group"`
	Kind  string `json:"kind"`
	Name  string `json:"name"`
	// SectionName narrows a route to its rule of that name.
	SectionName *string `json:"sectionName,omitempty"`
}
