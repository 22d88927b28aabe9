package config

import (
	"flag"
	"strings"
)

// Kubernetes are the settings of a mesh in a cluster. The zero value is a mesh
// without one.
type Kubernetes struct {
	// Enabled has the objects, the authority and the tokens be the cluster's.
	Enabled bool
	// Kubeconfig is the file that says where the API server is; empty means
	// that the process runs in a pod of the cluster.
	Kubeconfig string
	// PodName is the process's own pod, by which it stands for election. Empty
	// means the host's name, which in a pod is the same.
	PodName string
	// PodNamespace is where the pod, its Service, its Lease and the Secrets of
	// the authority are.
	PodNamespace string
}

func (k *Kubernetes) flags(fs *flag.FlagSet) {
	fs.BoolVar(&k.Enabled, "kubernetes", k.Enabled, "take objects, authority and tokens from a Kubernetes cluster")
	fs.StringVar(&k.Kubeconfig, "kubeconfig", k.Kubeconfig, "file that leads to the cluster (default: the cluster that the process runs in)")
	fs.StringVar(&k.PodName, "pod-name", k.PodName, "name of the process's own pod (default $POD_NAME, or the host's name)")
	fs.StringVar(&k.PodNamespace, "pod-namespace", k.PodNamespace, "namespace of the process's own pod (default $POD_NAMESPACE)")
}

// Environment takes over what Kubernetes tells a container by environment
// variables; flags parsed later win.
func (c *Config) Environment(getenv func(string) string) {
	if v := getenv("POD_NAME"); v != "" {
		c.Kubernetes.PodName = v
	}
	if v := getenv("POD_NAMESPACE"); v != "" {
		c.Kubernetes.PodNamespace = v
	}
}

func (c Config) validateKubernetes(fail func(string, ...any)) {
	for _, v := range []struct {
		flag string
		set  bool
		why  string
	}{
		{"--config-dir", c.ConfigDir != "", "objects are read from the cluster"},
		{"--state-dir", c.StateDir != "", "the authority is kept in a Secret"},
		{"--token-key", len(c.TokenKeys) > 0, "tokens are checked by the API server"},
		{"--root-out", c.RootOut != "", "the root is published as ConfigMap istio-ca-root-cert"},
	} {
		if v.set {
			fail("%s has no meaning with --kubernetes: %s", v.flag, v.why)
		}
	}
	if ns := c.Kubernetes.PodNamespace; ns == "" || strings.ContainsAny(ns, "/ \t\n") {
		fail("--pod-namespace %q: must be the namespace of the process's own pod (set POD_NAMESPACE)", ns)
	}
}

// serviceNames are the names under which pods reach the control plane's Service.
func (k Kubernetes) serviceNames(suffix string) []string {
	name := "istiod." + k.PodNamespace
	return []string{name + ".svc", name, name + ".svc." + suffix}
}
