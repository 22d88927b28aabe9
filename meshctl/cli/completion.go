package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tulle-mesh/tulle/meshctl/kube"
	"github.com/tulle-mesh/tulle/meshctl/mesh"
	gateways "github.com/tulle-mesh/tulle/meshctl/waypoint"
)

// completionTimeout bounds what one press of the tab key may wait for.
const completionTimeout = 2 * time.Second

func newCompletion(s *streams) *cobra.Command {
	return &cobra.Command{
		Use:   "completion bash|zsh|fish",
		Short: "Print the script that has a shell complete meshctl's commands",
		Long: `Prints a script for the shell. With it, the tab key completes commands, flags, and
the names of contexts, namespaces, nodes and pods.

  bash   source <(meshctl completion bash)
  zsh    meshctl completion zsh > "${fpath[1]}/_meshctl"
  fish   meshctl completion fish | source`,
		ValidArgs:             []string{"bash", "zsh", "fish"},
		DisableFlagsInUseLine: true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return errors.New("say for which shell: meshctl completion bash, zsh or fish")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			switch root := cmd.Root(); args[0] {
			case "bash":
				return root.GenBashCompletionV2(s.out, true)
			case "zsh":
				return root.GenZshCompletion(s.out)
			case "fish":
				return root.GenFishCompletion(s.out, true)
			}
			return fmt.Errorf("shell %q: there are bash, zsh and fish", args[0])
		},
	}
}

// quiet opens the mesh for completion: no notes, and not for long.
func (t *targetFlags) quiet(cmd *cobra.Command) (context.Context, context.CancelFunc, mesh.Mesh) {
	ctx, cancel := context.WithTimeout(cmd.Context(), completionTimeout)
	silent := *t
	silent.err = func(string, ...any) {}
	m, err := silent.open(ctx)
	if err != nil {
		cancel()
		return nil, nil, nil
	}
	return ctx, cancel, m
}

func (t *targetFlags) completeNamespaces(cmd *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
	ctx, cancel, m := t.quiet(cmd)
	if m == nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer cancel()
	seen := map[string]bool{}
	if c, ok := m.(*mesh.Cluster); ok {
		list, err := c.Client.Kubernetes.CoreV1().Namespaces().List(ctx, metav1.ListOptions{})
		if err == nil {
			for _, ns := range list.Items {
				seen[ns.Name] = true
			}
		}
	} else if pods, err := m.Pods(ctx, ""); err == nil {
		for _, p := range pods {
			seen[p.Namespace] = true
		}
	}
	return startingWith(seen, typed), cobra.ShellCompDirectiveNoFileComp
}

// completeCluster adds a cluster's flags to a command whose arguments are its
// namespaces, and completes both; what is on the command line already is not offered
// again.
func completeCluster(cmd *cobra.Command, target *kube.Flags) {
	target.Add(cmd.Flags())
	_ = cmd.RegisterFlagCompletionFunc("context", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return target.Contexts(), cobra.ShellCompDirectiveNoFileComp
	})
	cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		ctx, cancel := context.WithTimeout(cmd.Context(), completionTimeout)
		defer cancel()
		client, err := kube.Connect(ctx, *target)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		list, err := client.Kubernetes.CoreV1().Namespaces().List(ctx, metav1.ListOptions{})
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		names := map[string]bool{}
		for _, ns := range list.Items {
			if !slices.Contains(args, ns.Name) {
				names[ns.Name] = true
			}
		}
		return startingWith(names, typed), cobra.ShellCompDirectiveNoFileComp
	}
}

func (t *targetFlags) completeNodes(cmd *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
	ctx, cancel, m := t.quiet(cmd)
	if m == nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer cancel()
	seen := map[string]bool{}
	if all, err := m.Components(ctx, mesh.Ztunnel); err == nil {
		for _, c := range all {
			seen[c.Node] = true
		}
	}
	return startingWith(seen, typed), cobra.ShellCompDirectiveNoFileComp
}

// completePod completes the one argument POD.
func (f *proxyFlags) completePod(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return f.target.completePods(cmd, f.namespace, typed), cobra.ShellCompDirectiveNoFileComp
}

// completePods lists pods by name in the namespace that counts, or as
// NAMESPACE/NAME when the typed text has a slash.
func (t *targetFlags) completePods(cmd *cobra.Command, namespace, typed string) []string {
	ctx, cancel, m := t.quiet(cmd)
	if m == nil {
		return nil
	}
	defer cancel()
	ns, _, qualified := strings.Cut(typed, "/")
	if !qualified {
		ns = namespace
		if ns == "" {
			ns = m.Namespace()
		}
	}
	pods, err := m.Pods(ctx, ns)
	if err != nil {
		return nil
	}
	seen := map[string]bool{}
	for _, p := range pods {
		if qualified {
			seen[p.Namespace+"/"+p.Name] = true
		} else {
			seen[p.Name] = true
		}
	}
	return startingWith(seen, typed)
}

// completeWaypoints lists the waypoints whose proxies run, as NAMESPACE/NAME.
func (t *targetFlags) completeWaypoints(cmd *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
	ctx, cancel, m := t.quiet(cmd)
	if m == nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer cancel()
	seen := map[string]bool{}
	if all, err := m.Components(ctx, mesh.Waypoint); err == nil {
		for _, c := range all {
			seen[c.Gateway] = true
		}
	}
	return startingWith(seen, typed), cobra.ShellCompDirectiveNoFileComp
}

// completeOneWaypoint completes the one argument WAYPOINT.
func (t *targetFlags) completeOneWaypoint(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return t.completeWaypoints(cmd, args, typed)
}

// completeQualifiedServices lists services as NAMESPACE/NAME.
func (t *targetFlags) completeQualifiedServices(cmd *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
	ctx, cancel, m := t.quiet(cmd)
	if m == nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer cancel()
	seen := map[string]bool{}
	if list, err := m.Services(ctx, ""); err == nil {
		for _, s := range list {
			seen[s.Namespace+"/"+s.Name] = true
		}
	}
	return startingWith(seen, typed), cobra.ShellCompDirectiveNoFileComp
}

// completeAccounts lists the service accounts of pods as NAMESPACE/ACCOUNT.
func (t *targetFlags) completeAccounts(cmd *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
	ctx, cancel, m := t.quiet(cmd)
	if m == nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer cancel()
	seen := map[string]bool{}
	if pods, err := m.Pods(ctx, ""); err == nil {
		for _, p := range pods {
			seen[p.Namespace+"/"+cmp.Or(p.Account, "default")] = true
		}
	}
	return startingWith(seen, typed), cobra.ShellCompDirectiveNoFileComp
}

// completeLimits completes the one argument NAMESPACE/POLICY[/RULE] of those in force;
// rules are offered behind the slash that follows a policy.
func (t *targetFlags) completeLimits(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	ctx, cancel, m := t.quiet(cmd)
	if m == nil || len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer cancel()
	all, err := m.Components(ctx, mesh.Waypoint)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	answers, _ := mesh.Each(ctx, all, func(ctx context.Context, c *mesh.Component) (rateLimits, error) {
		var a rateLimits
		body, err := c.Get(ctx, "/ratelimits?keys=1")
		if err == nil {
			err = json.Unmarshal(body, &a)
		}
		return a, err
	})
	seen := map[string]bool{}
	for _, a := range answers {
		for _, r := range a.Rules {
			if strings.Count(typed, "/") > 1 {
				seen[limitName(r.Policy, r.Rule)] = true
			} else {
				seen[r.Policy] = true
			}
		}
	}
	return startingWith(seen, typed), cobra.ShellCompDirectiveNoFileComp
}

// completeGateways completes names of waypoints of a cluster's namespace.
func completeGateways(cmd *cobra.Command, target *kube.Flags, namespace *string, most int) {
	cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		ctx, cancel := context.WithTimeout(cmd.Context(), completionTimeout)
		defer cancel()
		client, err := kube.Connect(ctx, *target)
		if err != nil || most > 0 && len(args) >= most {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		list, err := gateways.List(ctx, client, cmp.Or(*namespace, client.Namespace))
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		names := map[string]bool{}
		for _, w := range list {
			if !slices.Contains(args, w.Name) {
				names[w.Name] = true
			}
		}
		return startingWith(names, typed), cobra.ShellCompDirectiveNoFileComp
	}
}

// clusterNamespaces completes a flag with the namespaces of a cluster.
func clusterNamespaces(target *kube.Flags) cobra.CompletionFunc {
	return func(cmd *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
		ctx, cancel := context.WithTimeout(cmd.Context(), completionTimeout)
		defer cancel()
		names := map[string]bool{}
		if client, err := kube.Connect(ctx, *target); err == nil {
			if list, err := client.Kubernetes.CoreV1().Namespaces().List(ctx, metav1.ListOptions{}); err == nil {
				for _, ns := range list.Items {
					names[ns.Name] = true
				}
			}
		}
		return startingWith(names, typed), cobra.ShellCompDirectiveNoFileComp
	}
}

func startingWith(names map[string]bool, typed string) []string {
	var out []string
	for name := range names {
		if strings.HasPrefix(name, typed) {
			out = append(out, name)
		}
	}
	return out
}
