package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/tulle-mesh/tulle/e2e/bench/measure"
	"github.com/tulle-mesh/tulle/e2e/bench/namespace"
	"github.com/tulle-mesh/tulle/e2e/bench/report"
	"github.com/tulle-mesh/tulle/e2e/bench/topology"
	"github.com/tulle-mesh/tulle/e2e/bench/variant"
)

// baselines are what the table compares with.
var baselines = []string{"haproxy", "nginx", "reverseproxy", "waypoint"}

// inside measures, in namespaces of its own.
func inside(ctx context.Context, o options) error {
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
	b.measure.Dir = b.dir
	chosen, err := variant.Choose(variant.AllHTTP(variant.HTTPConfig{
		Config: variant.Config{Self: self, Bin: o.bin, Dir: b.dir}, Peers: o.peers, Debug: o.debug,
	}), o.variants)
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
		// A neighbour of the machine that is busy for a minute shall not always meet the same.
		if round%2 == 1 {
			variants = slices.Clone(variants)
			slices.Reverse(variants[min(1, len(variants)):])
		}
		var direct measure.Direct
		for _, v := range variants {
			start := time.Now()
			if err := b.one(ctx, v, &direct); err != nil {
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
func (b *bench) one(ctx context.Context, v variant.Variant, direct *measure.Direct) (err error) {
	top, err := topology.New(b.dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, top.Close()) }()
	backends, err := variant.StartBackends(b.self, b.dir, top)
	defer backends.Stop()
	if err != nil {
		return err
	}
	defer v.Stop()
	running, err := v.Start(ctx, top)
	if err == nil {
		err = measure.RunHTTP(ctx, b.measure, direct, b.self, v.Name(), running, top, &b.report)
	}
	if checker, ok := v.(variant.Checker); ok && err == nil {
		err = checker.Check()
	}
	return variant.Explain(v, err)
}

// finish prints the table and, when all went well, writes the file.
func (b *bench) finish(complete bool) error {
	fmt.Print("\n", topology.Machine(), "\n\n")
	if err := b.report.WriteTable(os.Stdout, baselines); err != nil {
		return err
	}
	fmt.Println()
	writeMarks(os.Stdout, b.report.Rows())
	if !complete {
		return nil
	}
	if err := b.report.WriteJSON(b.out); err != nil {
		return fmt.Errorf("write results: %w", err)
	}
	path, _ := filepath.Abs(b.out)
	fmt.Printf("\nresults in %s\n", path)
	return nil
}
