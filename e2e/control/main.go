// Control measures the control plane at scale: how long a change of a pod takes
// to the last of many node proxies, what istiod-lite spends on it, and how many
// certificates it issues.
//
// The API is a real etcd and kube-apiserver, with the EndpointSlice controller
// of kube-controller-manager, on loopback. Pods are objects: no kubelet runs
// them, this program binds them to nodes and writes their status. The proxies
// are internal/xdsclient with tokens of their own, all in this process;
// istiod-lite is a process of its own. It needs no root.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	opts, err := parse(os.Args[1:])
	if err == nil {
		err = run(ctx, opts)
	}
	if err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return
		}
		fmt.Fprintln(os.Stderr, "control:", err)
		os.Exit(1)
	}
}

// options are the command line's.
type options struct {
	services, pods, nodes, namespaces int

	rate         int
	rounds       int
	round        time.Duration
	settle       time.Duration
	certificates time.Duration

	controllers bool
	bin, out    string
	logs        string
	profile     bool
}

// shortValues are what -short sets, unless the command line says otherwise.
var shortValues = map[string]string{
	"services": "100", "pods": "1000", "nodes": "20", "rounds": "1", "round": "10s", "settle": "3s", "certificates": "3s",
}

func parse(args []string) (options, error) {
	var o options
	var short bool
	f := flag.NewFlagSet("control", flag.ContinueOnError)
	f.IntVar(&o.services, "services", 1000, "number of Services")
	f.IntVar(&o.pods, "pods", 10_000, "number of pods, spread over services and nodes")
	f.IntVar(&o.nodes, "nodes", 100, "number of nodes, each with one proxy")
	f.IntVar(&o.namespaces, "namespaces", 50, "number of namespaces that the services are spread over")
	f.IntVar(&o.rate, "rate", 100, "pod changes a second")
	f.IntVar(&o.rounds, "rounds", 3, "rounds of churn")
	f.DurationVar(&o.round, "round", 20*time.Second, "duration of each")
	f.DurationVar(&o.settle, "settle", 20*time.Second, "time of rest before memory and CPU at rest are read, which takes as long again")
	f.DurationVar(&o.certificates, "certificates", 10*time.Second, "duration of the measure of certificates")
	f.BoolVar(&o.controllers, "controllers", true, "run the EndpointSlice controller of kube-controller-manager")
	f.StringVar(&o.bin, "bin", "bin", "folder with istiod-lite")
	f.StringVar(&o.out, "out", "out/bench-control.json", "file for the results")
	f.StringVar(&o.logs, "logs", "", "folder for logs and profiles; kept when named")
	f.BoolVar(&o.profile, "profile", false, "write CPU and heap profiles of istiod-lite into -logs")
	f.BoolVar(&short, "short", false, "a tenth of the mesh for a few seconds: a look, not a result")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if f.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	if short {
		given := map[string]bool{}
		f.Visit(func(fl *flag.Flag) { given[fl.Name] = true })
		for name, value := range shortValues {
			if given[name] {
				continue
			}
			if err := f.Set(name, value); err != nil {
				return o, err
			}
		}
	}
	switch {
	case o.services < 1 || o.pods < o.services || o.nodes < 1 || o.namespaces < 1:
		return o, errors.New("-services, -nodes and -namespaces must be positive, and -pods no less than -services")
	case o.rate < 2 || o.rounds < 1:
		return o, errors.New("-rate must be at least 2 and -rounds at least 1")
	case o.profile && o.logs == "":
		return o, errors.New("-profile needs -logs")
	}
	return o, nil
}
