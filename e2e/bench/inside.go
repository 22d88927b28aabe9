package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/tulle-mesh/tulle/e2e/bench/measure"
	"github.com/tulle-mesh/tulle/e2e/bench/namespace"
	"github.com/tulle-mesh/tulle/e2e/bench/report"
	"github.com/tulle-mesh/tulle/e2e/bench/topology"
	"github.com/tulle-mesh/tulle/e2e/bench/variant"
)

// baselines are what the table compares with.
var baselines = []string{"direct", "relay", "haproxy"}

// inside measures, in namespaces of its own.
func inside(o options) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	dir, err := namespace.Enter()
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	b := &bench{options: o, self: self, dir: dir}
	if o.keepLogs != "" {
		b.dir = o.keepLogs
		if err := os.MkdirAll(b.dir, 0o755); err != nil {
			return err
		}
	}
	chosen, err := variant.Choose(variant.All(variant.Config{Self: self, Bin: o.bin, Dir: b.dir}), o.variants)
	if err != nil {
		return err
	}
	err = b.run(ctx, chosen)
	// What was measured before a failure is worth showing too.
	return errors.Join(err, b.finish(err == nil))
}

type bench struct {
	options
	self, dir string
	report    report.Report
}

// run measures all variants in turn, round after round.
func (b *bench) run(ctx context.Context, variants []variant.Variant) error {
	for round := range b.rounds {
		for _, v := range variants {
			start := time.Now()
			if err := b.one(ctx, v, round == b.rounds-1); err != nil {
				if ctx.Err() != nil {
					return errors.New("interrupted")
				}
				return fmt.Errorf("%s, round %d: %w", v.Name(), round+1, err)
			}
			fmt.Fprintf(os.Stderr, "round %d of %d: %s in %v\n", round+1, b.rounds, v.Name(), time.Since(start).Round(time.Second))
		}
	}
	return nil
}

// one measures one variant once, in a topology of its own.
func (b *bench) one(ctx context.Context, v variant.Variant, last bool) (err error) {
	top, err := topology.New(b.dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, top.Close()) }()
	server := exec.Command(b.self, "serve")
	server.Stderr = os.Stderr
	if err := top.Server.Start(server); err != nil {
		return err
	}
	defer func() {
		server.Process.Kill()
		server.Wait()
	}()
	defer v.Stop()
	running, err := v.Start(ctx, top)
	if err != nil {
		return variant.Explain(v, err)
	}
	cfg := b.measure
	if !last {
		cfg.Back = 0
	}
	err = measure.Run(ctx, cfg, b.self, v.Name(), running, top, &b.report)
	if checker, ok := v.(variant.Checker); ok && err == nil {
		err = checker.Check()
	}
	return variant.Explain(v, err)
}

// finish prints the table and, when all went well, writes the file.
func (b *bench) finish(complete bool) error {
	fmt.Print("\n", topology.Machine(), "\n\n")
	if err := b.report.WriteTable(os.Stdout, baselines); err != nil || !complete {
		return err
	}
	if err := b.report.WriteJSON(b.out); err != nil {
		return fmt.Errorf("write results: %w", err)
	}
	path, _ := filepath.Abs(b.out)
	fmt.Printf("\nresults in %s\n", path)
	return nil
}
