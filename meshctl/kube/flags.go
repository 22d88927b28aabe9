package kube

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
)

// Flags say which cluster is meant. The zero value is the current context of the
// kubeconfig that kubectl would use.
type Flags struct {
	// Kubeconfig is a file; empty is KUBECONFIG, else ~/.kube/config, else, inside
	// a pod, its service account.
	Kubeconfig string
	// Context is a context of that file; empty is its current one.
	Context string
}

// Add adds --kubeconfig and --context to a flag set.
func (f *Flags) Add(fs *pflag.FlagSet) {
	fs.StringVar(&f.Kubeconfig, "kubeconfig", f.Kubeconfig, "kubeconfig of the cluster (default: KUBECONFIG, else ~/.kube/config)")
	fs.StringVar(&f.Context, "context", f.Context, "context of the kubeconfig (default: its current one)")
}

// Given reports that a cluster was chosen on the command line.
func (f Flags) Given() bool { return f.Kubeconfig != "" || f.Context != "" }

func (f Flags) rules() *clientcmd.ClientConfigLoadingRules {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = f.Kubeconfig
	// Files of KUBECONFIG that do not exist are normal; what else is wrong with
	// one is an error of loading.
	rules.WarnIfAllMissing = false
	return rules
}

// Configured reports that there is a cluster to connect to without further words:
// a kubeconfig with a context, or a pod's service account.
func (f Flags) Configured() bool {
	raw, err := f.rules().Load()
	if err == nil && len(raw.Contexts) > 0 {
		return true
	}
	_, err = rest.InClusterConfig()
	return err == nil
}

// Contexts lists the contexts of the kubeconfig by name; for completion.
func (f Flags) Contexts() []string {
	raw, err := f.rules().Load()
	if err != nil {
		return nil
	}
	return slices.Sorted(maps.Keys(raw.Contexts))
}

// load returns the settings of the chosen cluster, the name of the context and
// the namespace that it brings. The context is empty inside a pod.
func (f Flags) load() (config *rest.Config, context, namespace string, err error) {
	rules := f.rules()
	raw, err := rules.Load()
	switch {
	case err != nil && f.Kubeconfig != "" && os.IsNotExist(err):
		return nil, "", "", fmt.Errorf("--kubeconfig %s: there is no such file", f.Kubeconfig)
	case err != nil:
		return nil, "", "", fmt.Errorf("kubeconfig: %w", err)
	}
	context = f.Context
	if context == "" {
		context = raw.CurrentContext
	}
	switch {
	case len(raw.Contexts) == 0 && f.Context == "" && f.Kubeconfig == "":
		if config, err := rest.InClusterConfig(); err == nil {
			return config, "", podNamespace(), nil
		}
		return nil, "", "", fmt.Errorf("no cluster to talk to: %s; write one (kubectl config), or name one with --kubeconfig", f.where(rules))
	case len(raw.Contexts) == 0 && f.Context != "":
		return nil, "", "", fmt.Errorf("no context %q to find: %s; name a kubeconfig that has it with --kubeconfig", f.Context, f.where(rules))
	case len(raw.Contexts) == 0:
		return nil, "", "", fmt.Errorf("%s has no context; name another one with --kubeconfig", f.where(rules))
	case context == "":
		return nil, "", "", fmt.Errorf("%s has no current context: choose one with --context (%s)", f.where(rules), contexts(raw))
	case raw.Contexts[context] == nil:
		return nil, "", "", fmt.Errorf("context %q is not in %s, which has: %s", context, f.where(rules), contexts(raw))
	}
	chosen := clientcmd.NewNonInteractiveClientConfig(*raw, context, &clientcmd.ConfigOverrides{}, rules)
	config, err = chosen.ClientConfig()
	if err != nil {
		return nil, "", "", fmt.Errorf("context %q of %s: %w", context, f.where(rules), err)
	}
	namespace, _, err = chosen.Namespace()
	if err != nil {
		namespace = "default"
	}
	return config, context, namespace, nil
}

// where names the files that were looked at, or says that there is none.
func (f Flags) where(rules *clientcmd.ClientConfigLoadingRules) string {
	if f.Kubeconfig != "" {
		return "the kubeconfig " + f.Kubeconfig
	}
	if env := os.Getenv(clientcmd.RecommendedConfigPathEnvVar); env != "" {
		return "the kubeconfig " + env + " (KUBECONFIG)"
	}
	if _, err := os.Stat(clientcmd.RecommendedHomeFile); err != nil {
		return "there is no kubeconfig (KUBECONFIG is not set and " + clientcmd.RecommendedHomeFile + " does not exist)"
	}
	return "the kubeconfig " + strings.Join(rules.Precedence, ", ")
}

func contexts(raw *api.Config) string {
	return strings.Join(slices.Sorted(maps.Keys(raw.Contexts)), ", ")
}

// podNamespace is the namespace of the pod that this process runs in.
func podNamespace() string {
	data, err := os.ReadFile("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
	if ns := strings.TrimSpace(string(data)); err == nil && ns != "" {
		return ns
	}
	return "default"
}
