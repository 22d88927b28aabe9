package app

import (
	"context"
	"errors"
	"fmt"
	"os"

	"go.uber.org/zap"

	"github.com/tulle-mesh/tulle/internal/netns"
	"github.com/tulle-mesh/tulle/ztunnel/agent/cniconf"
	"github.com/tulle-mesh/tulle/ztunnel/agent/enrol"
	"github.com/tulle-mesh/tulle/ztunnel/agent/hostprobe"
	"github.com/tulle-mesh/tulle/ztunnel/agent/sandbox"
	"github.com/tulle-mesh/tulle/ztunnel/redirect"
)

// clean takes a node out of the mesh whose agent is not there any more: the
// plugin, the rules in all network namespaces, the node's own rules, and the
// state. It needs neither the API server nor the state.
func clean(ctx context.Context, cfg Config, log *zap.Logger) error {
	k := cfg.Kubernetes
	// An agent that runs would put everything back.
	lock, err := enrol.New(enrol.Config{StateDir: cfg.StateDir, Proxies: &link{}})
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := writableSysctls(k.Proc); err != nil {
		return err
	}
	errs := []error{cniconf.Remove(k.ConfDir)}
	all, err := sandbox.Finder{Proc: k.Proc, Netns: k.Netns}.All()
	errs = append(errs, err)
	released := 0
	for _, s := range all {
		if err := ctx.Err(); err != nil {
			return errors.Join(append(errs, err)...)
		}
		done, err := cleanNamespace(s)
		if err != nil {
			errs = append(errs, err)
		}
		if done {
			released++
		}
	}
	errs = append(errs, hostprobe.Remove(nil), cniconf.RemoveProgram(k.BinDir), os.RemoveAll(cfg.StateDir))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("something of the mesh stays on the node: %w", err)
	}
	log.Info("the node is out of the mesh", zap.Int("pods", released))
	return nil
}

// cleanNamespace removes our rules from one namespace; done tells whether there
// were any.
func cleanNamespace(s sandbox.Sandbox) (done bool, err error) {
	ns, err := netns.Open(s.Path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil // ended meanwhile
	}
	if err != nil {
		return false, err
	}
	defer ns.Close()
	if present, err := redirect.Present(ns); err != nil || !present {
		return false, err
	}
	return true, redirect.Remove(ns)
}
