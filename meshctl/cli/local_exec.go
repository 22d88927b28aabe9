package cli

import (
	"context"
	"errors"
	"os"

	"github.com/spf13/cobra"

	"github.com/tulle-mesh/tulle/meshctl/local/control"
)

func newExec(s *streams, flags *localFlags) *cobra.Command {
	var request control.Exec
	cmd := &cobra.Command{
		Use:   "exec (POD | --node NODE | --control-plane) -- COMMAND [ARG]...",
		Short: "Run a command inside a pod, on a node, or beside the control plane",
		Long: `Runs a command of this machine where POD is: in its network namespace, with its
names, environment and user. Standard input and output are the command's own,
signals reach it, and its exit status becomes meshctl's. POD is NAME,
NAMESPACE/NAME or deploy/NAME.`,
		Example: `  meshctl local exec client -- curl -s http://web/
  meshctl local exec --node node-1 -- ip route`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			dash := cmd.ArgsLenAtDash()
			if dash < 0 && len(args) > 1 {
				dash = 1 // `exec POD CMD` is understood as well
			}
			if dash < 0 || len(args) == dash {
				return errors.New("say after -- which command to run: meshctl local exec POD -- COMMAND")
			}
			inPod := request.Node == "" && !request.ControlPlane
			switch {
			case inPod && dash != 1:
				return errors.New("say where to run it: meshctl local exec POD -- COMMAND, or --node NODE")
			case !inPod && dash != 0:
				return errors.New("a POD and --node or --control-plane exclude each other")
			case inPod:
				request.Pod = args[0]
			}
			request.Argv = args[dash:]
			if term := os.Getenv("TERM"); term != "" {
				request.Env = append(request.Env, "TERM="+term)
			}
			return runExec(cmd, s, flags, request)
		},
	}
	cmd.Flags().StringVarP(&request.Namespace, "namespace", "n", "", "namespace of POD; may be left out when only one pod has that name")
	cmd.Flags().StringVarP(&request.Container, "container", "c", "", "container of POD whose environment and user to take (default: the first)")
	cmd.Flags().StringVar(&request.Node, "node", "", "run on this node instead of in a pod")
	cmd.Flags().BoolVar(&request.ControlPlane, "control-plane", false, "run where istiod-lite runs instead of in a pod")
	return cmd
}

func runExec(cmd *cobra.Command, s *streams, flags *localFlags, request control.Exec) error {
	mesh, err := flags.open(cmd.Context())
	if err != nil {
		return err
	}
	// Signals go to the command, which decides what they mean: meshctl's own
	// context, which an interrupt ends, is not its.
	code, err := mesh.Exec(context.WithoutCancel(cmd.Context()), request, s.in, s.outFile, s.errFile)
	if err != nil {
		return err
	}
	if code != 0 {
		return exitError(code)
	}
	return nil
}
