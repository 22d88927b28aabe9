package cni

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"
)

// supported are the versions of the specification in which a chained plugin gets
// the result of those before.
var supported = version.PluginSupports("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")

// Called tells whether the program was called as a plugin.
func Called(getenv func(string) string) bool { return getenv("CNI_COMMAND") != "" }

// Main is the plugin. It reads the environment and standard input, writes the
// result to standard output, and returns the exit code.
func Main(about string) int {
	funcs := skel.CNIFuncs{
		Add:    func(args *skel.CmdArgs) error { return add(args, os.Stdout) },
		Del:    del,
		Check:  check,
		Status: func(*skel.CmdArgs) error { return nil },
		GC:     func(*skel.CmdArgs) error { return nil },
	}
	if err := skel.PluginMainFuncsWithError(funcs, supported, about); err != nil {
		if err.Print() != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		return 1
	}
	return 0
}

func add(args *skel.CmdArgs, output io.Writer) error {
	in, q, err := request(args)
	if err != nil {
		return err
	}
	if len(in.PrevResult) == 0 || bytes.Equal(in.PrevResult, []byte("null")) {
		return types.NewError(types.ErrInvalidNetworkConfig, Type+" must be chained after the plugin that makes the pod's interface", "prevResult is missing")
	}
	if !slices.Contains(in.ExcludeNamespaces, q.Namespace) {
		q.Addresses = addresses(in.PrevResult)
		if _, err := ask(in.AgentSocket, "add", q, addTimeout); err != nil {
			return refused(q, err)
		}
	}
	_, err = output.Write(in.PrevResult)
	return err
}

func check(args *skel.CmdArgs) error {
	in, q, err := request(args)
	if err != nil {
		return err
	}
	if slices.Contains(in.ExcludeNamespaces, q.Namespace) {
		return nil
	}
	if _, err := ask(in.AgentSocket, "check", q, delTimeout); err != nil {
		return refused(q, err)
	}
	return nil
}

// del never fails: what the agent misses it learns from the API server, and a
// pod whose removal fails is never gone.
func del(args *skel.CmdArgs) error {
	in, q, err := request(args)
	if err != nil || slices.Contains(in.ExcludeNamespaces, q.Namespace) {
		return nil
	}
	if _, err := ask(in.AgentSocket, "del", q, delTimeout); err != nil {
		fmt.Fprintf(os.Stderr, "%s: pod %s/%s: %v\n", Type, q.Namespace, q.Name, err)
	}
	return nil
}

// refused is an error after which the runtime tries again.
func refused(q Request, err error) error {
	return types.NewError(types.ErrTryAgainLater, fmt.Sprintf("pod %s/%s cannot join the mesh yet", q.Namespace, q.Name), err.Error())
}

func request(args *skel.CmdArgs) (input, Request, error) {
	in, err := parseInput(args.StdinData)
	if err != nil {
		return input{}, Request{}, types.NewError(types.ErrDecodingFailure, "configuration of "+Type, err.Error())
	}
	namespace, name, uid, err := podArgs(args.Args)
	if err != nil {
		return input{}, Request{}, types.NewError(types.ErrInvalidEnvironmentVariables, "pod", err.Error())
	}
	return in, Request{
		ContainerID: args.ContainerID, IfName: args.IfName, Netns: args.Netns,
		Namespace: namespace, Name: name, UID: uid,
	}, nil
}
