package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/tulle-mesh/tulle/e2e/cluster"
	"github.com/tulle-mesh/tulle/e2e/cluster/binaries"
	"github.com/tulle-mesh/tulle/e2e/cluster/catalog"
	"github.com/tulle-mesh/tulle/e2e/cluster/machine"
	"github.com/tulle-mesh/tulle/e2e/cluster/topology"
)

// settings are the flags of all commands.
type settings struct {
	state, source, binaries string
}

// cluster returns a handle; only commands that start programs need binaries.
func (s *settings) cluster(out io.Writer) *cluster.Cluster {
	return cluster.New(cluster.Config{State: s.state, Binaries: s.binaries, Output: out})
}

func (s *settings) ensureBinaries(ctx context.Context, out io.Writer) (string, error) {
	if s.binaries != "" {
		return s.binaries, nil
	}
	module, err := binaries.Module(s.source)
	if err != nil {
		return "", err
	}
	cache, err := binaries.DefaultCache()
	if err != nil {
		return "", err
	}
	s.binaries, err = binaries.Ensure(ctx, module, cache, out)
	return s.binaries, err
}

func command() *cobra.Command {
	s := &settings{}
	root := &cobra.Command{
		Use: "cluster", Short: "A Kubernetes cluster of several nodes on this machine, for tests",
		SilenceUsage: true, SilenceErrors: true,
	}
	root.PersistentFlags().StringVar(&s.state, "state-dir", cluster.DefaultState(), "where the cluster keeps its files, nodes' disks included ($TULLE_CLUSTER_STATE)")
	root.PersistentFlags().StringVar(&s.source, "source", "", "the directory e2e/cluster of a checkout; where this program was compiled if not given")
	root.PersistentFlags().StringVar(&s.binaries, "binaries", os.Getenv("TULLE_CLUSTER_BIN"), "use the programs in this directory instead of building them ($TULLE_CLUSTER_BIN)")
	root.AddCommand(upCommand(s), downCommand(s), binariesCommand(s), imagesCommand(s), statusCommand(s), loadCommand(s), kubectlCommand(s),
		execCommand(s), shellCommand(s), nodeCommand(s), serviceCommand(s), netCommand(s), logsCommand(s), initCommand(), forwardCommand())
	return root
}

func upCommand(s *settings) *cobra.Command {
	var t topology.Topology
	var ipv4 bool
	cmd := &cobra.Command{
		Use: "up [IMAGE.tar]...", Short: "Start a cluster, load images into its nodes, and leave it running",
		RunE: func(cmd *cobra.Command, images []string) error {
			out := cmd.OutOrStdout()
			if _, err := s.ensureBinaries(cmd.Context(), out); err != nil {
				return err
			}
			t.DualStack = !ipv4
			c := s.cluster(out)
			if err := c.Up(cmd.Context(), t, images); err != nil {
				return err
			}
			fmt.Fprintf(out, "\nThe cluster is up. To use it:\n\n  export KUBECONFIG=%s\n  export PATH=$PATH:%s\n  kubectl get nodes\n", c.Kubeconfig(), s.binaries)
			return nil
		},
	}
	cmd.Flags().IntVar(&t.Nodes, "nodes", 3, "how many nodes, 1 to 9")
	cmd.Flags().BoolVar(&ipv4, "ipv4", false, "IPv4 alone instead of both IP versions")
	return cmd
}

func downCommand(s *settings) *cobra.Command {
	var keep string
	cmd := &cobra.Command{
		Use: "down", Short: "End the cluster and remove everything of it", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return s.cluster(cmd.OutOrStdout()).Down(cmd.Context(), keep)
		},
	}
	cmd.Flags().StringVar(&keep, "keep-logs", "", "copy all logs into this directory first")
	return cmd
}

func binariesCommand(s *settings) *cobra.Command {
	return &cobra.Command{
		Use: "binaries", Short: "Build the cluster's programs if they are not cached, and print where they are", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := s.ensureBinaries(cmd.Context(), cmd.ErrOrStderr())
			if err == nil {
				fmt.Fprintln(cmd.OutOrStdout(), dir)
			}
			return err
		},
	}
}

func imagesCommand(s *settings) *cobra.Command {
	var bin, version, out string
	cmd := &cobra.Command{
		Use:   "images [NAME]...",
		Short: "Make images, and load them into the nodes if the cluster is up",
		Long:  "Make images (all if none is named) and load them into the nodes if the cluster is up.\nNames: " + strings.Join(catalog.Names(), ", "),
		RunE: func(cmd *cobra.Command, names []string) error {
			begun := time.Now()
			module, err := binaries.Module(s.source)
			if err != nil {
				return err
			}
			archives, err := catalog.Build(cmd.Context(), catalog.Sources{Module: module, Bin: bin, Version: version}, out, names)
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%7.1f s  %d images in %s\n", time.Since(begun).Seconds(), len(archives), out)
			err = s.cluster(nil).LoadImages(cmd.Context(), archives)
			if errors.Is(err, cluster.ErrDown) {
				return nil
			}
			if err == nil {
				fmt.Fprintf(cmd.OutOrStdout(), "%7.1f s  loaded into the nodes\n", time.Since(begun).Seconds())
			}
			return err
		},
	}
	cmd.Flags().StringVar(&bin, "bin", "bin", "where the product's binaries are")
	cmd.Flags().StringVar(&version, "version", "dev", "tag of the product's images: the version that the binaries tell")
	cmd.Flags().StringVar(&out, "out", "out/images", "where the archives are written")
	return cmd
}

func statusCommand(s *settings) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use: "status", Short: "Show what runs", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			status, err := s.cluster(nil).Status(cmd.Context())
			if errors.Is(err, cluster.ErrDown) {
				return err
			}
			out := cmd.OutOrStdout()
			if output == "json" {
				enc := json.NewEncoder(out)
				enc.SetIndent("", "  ")
				return errors.Join(enc.Encode(status), err)
			}
			fmt.Fprintf(out, "kubeconfig %s\nAPI server https://%s\n\n", status.Kubeconfig, status.Endpoint)
			w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
			for _, name := range []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "forwarder"} {
				fmt.Fprintf(w, "%s\t%s\n", name, state(status.ControlPlane[name]))
			}
			fmt.Fprintf(w, "\nNODE\tPID\tREADY\tCONTAINERD\tKUBELET\tKUBE-PROXY\n")
			for _, n := range status.Nodes {
				fmt.Fprintf(w, "%s\t%d\t%v\t%s\t%s\t%s\n", n.Name, n.PID, n.Ready,
					state(n.Services[machine.Containerd] > 0), state(n.Services[machine.Kubelet] > 0), state(n.Services[machine.KubeProxy] > 0))
			}
			return errors.Join(w.Flush(), err)
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "json, for programs")
	return cmd
}

func state(runs bool) string {
	if runs {
		return "runs"
	}
	return "stopped"
}

func loadCommand(s *settings) *cobra.Command {
	return &cobra.Command{
		Use: "load IMAGE.tar...", Short: "Load OCI image archives into every node", Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, archives []string) error {
			return s.cluster(nil).LoadImages(cmd.Context(), archives)
		},
	}
}

func kubectlCommand(s *settings) *cobra.Command {
	return &cobra.Command{
		Use: "kubectl ARGUMENT...", Short: "Run kubectl as the administrator", DisableFlagParsing: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			bin, err := s.ensureBinaries(cmd.Context(), cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			path := filepath.Join(bin, "kubectl")
			return syscall.Exec(path, append([]string{"kubectl"}, args...), append(os.Environ(), "KUBECONFIG="+s.cluster(nil).Kubeconfig()))
		},
	}
}

func execCommand(s *settings) *cobra.Command {
	cmd := &cobra.Command{
		Use: "exec NODE COMMAND [ARGUMENT]...", Short: "Run a command as root of a node", Args: cobra.MinimumNArgs(2),
		RunE: func(_ *cobra.Command, args []string) error { return s.enter(args[0], args[1:]...) },
	}
	cmd.Flags().SetInterspersed(false)
	return cmd
}

func shellCommand(s *settings) *cobra.Command {
	return &cobra.Command{
		Use: "shell NODE", Short: "A shell on a node; ctr and crictl's socket are there", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error { return s.enter(args[0], "/bin/bash", "-i") },
	}
}

// enter replaces this process by the command in the node.
func (s *settings) enter(node string, command ...string) error {
	args, err := s.cluster(nil).NodeCommand(node, command...)
	if err != nil {
		return err
	}
	path, err := exec.LookPath(args[0])
	if err != nil {
		return fmt.Errorf("%w; install the Debian package util-linux", err)
	}
	ctd, _ := filepath.EvalSymlinks(s.binaries)
	env := append(os.Environ(), "CONTAINERD_NAMESPACE=k8s.io")
	if ctd != "" {
		env = append(env, "PATH="+os.Getenv("PATH")+":"+filepath.Join(ctd, "containerd"))
	}
	return syscall.Exec(path, args, env)
}

func nodeCommand(s *settings) *cobra.Command {
	cmd := &cobra.Command{Use: "node", Short: "Stop and start nodes"}
	cmd.AddCommand(
		&cobra.Command{
			Use: "stop NODE", Short: "End every process of a node at once, as a power failure does", Args: cobra.ExactArgs(1),
			RunE: func(_ *cobra.Command, args []string) error { return s.cluster(nil).StopNode(args[0]) },
		},
		&cobra.Command{
			Use: "start NODE", Short: "Start a stopped node again with its disk", Args: cobra.ExactArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error { return s.cluster(nil).StartNode(cmd.Context(), args[0]) },
		},
	)
	return cmd
}

func serviceCommand(s *settings) *cobra.Command {
	cmd := &cobra.Command{Use: "service", Short: "Stop and start one of a node's services: containerd, kubelet, kube-proxy"}
	cmd.AddCommand(
		&cobra.Command{
			Use: "stop NODE SERVICE", Short: "End a service until it is started again; containers go on", Args: cobra.ExactArgs(2),
			RunE: func(cmd *cobra.Command, args []string) error {
				return s.cluster(nil).StopService(cmd.Context(), args[0], args[1])
			},
		},
		&cobra.Command{
			Use: "start NODE SERVICE", Short: "Start a stopped service", Args: cobra.ExactArgs(2),
			RunE: func(cmd *cobra.Command, args []string) error {
				return s.cluster(nil).StartService(cmd.Context(), args[0], args[1])
			},
		},
	)
	return cmd
}

func netCommand(s *settings) *cobra.Command {
	cmd := &cobra.Command{Use: "net", Short: "Cut nodes off the network"}
	cmd.AddCommand(
		&cobra.Command{
			Use: "cut NODE", Short: "Take a node off the LAN; its packets vanish", Args: cobra.ExactArgs(1),
			RunE: func(_ *cobra.Command, args []string) error { return s.cluster(nil).CutNetwork(args[0]) },
		},
		&cobra.Command{
			Use: "restore NODE", Short: "Put a node back on the LAN", Args: cobra.ExactArgs(1),
			RunE: func(_ *cobra.Command, args []string) error { return s.cluster(nil).RestoreNetwork(args[0]) },
		},
	)
	return cmd
}

func logsCommand(s *settings) *cobra.Command {
	return &cobra.Command{
		Use: "logs DIRECTORY", Short: "Copy the logs of the control plane, the nodes and their pods", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error { return s.cluster(nil).CopyLogs(args[0]) },
	}
}

// initCommand is what a node's first process runs.
func initCommand() *cobra.Command {
	return &cobra.Command{
		Use: "node-init DIRECTORY", Hidden: true, Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error { return machine.Run(args[0]) },
	}
}

// forwardCommand leads a port of the host to the API server.
func forwardCommand() *cobra.Command {
	return &cobra.Command{
		Use: "forward ADDRESS", Hidden: true, Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error { return cluster.Forward(args[0]) },
	}
}
