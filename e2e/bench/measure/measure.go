package measure

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"time"

	"github.com/tulle-mesh/tulle/e2e/bench/load"
	"github.com/tulle-mesh/tulle/e2e/bench/report"
	"github.com/tulle-mesh/tulle/e2e/bench/topology"
	"github.com/tulle-mesh/tulle/e2e/bench/variant"
)

// Config says how long and how much.
type Config struct {
	// Bulk, Requests and Connects are the durations of the measures of that kind.
	Bulk, Requests, Connects time.Duration
	// IdleConns is how many idle connections are held.
	IdleConns int
	// Settle is the time that memory gets to settle before it is read.
	Settle time.Duration
	// Back is how long after the load memory is read again; 0 skips that.
	Back time.Duration
}

// warmTimeout bounds the time until the first request of a variant is answered.
const warmTimeout = 30 * time.Second

// runner measures one variant in one topology.
type runner struct {
	cfg     Config
	self    string
	name    string
	running variant.Running
	top     *topology.Topology
	out     *report.Report
}

// Run measures a started variant and adds the samples to out. self is the
// program that generates the load.
func Run(ctx context.Context, cfg Config, self, name string, running variant.Running, top *topology.Topology, out *report.Report) error {
	r := &runner{cfg, self, name, running, top, out}
	if err := r.warm(ctx); err != nil {
		return err
	}
	before, err := r.footprint(ctx)
	if err != nil {
		return err
	}
	// Idle comes first: memory that load has left behind would hide what connections need.
	steps := []func(context.Context) error{
		func(ctx context.Context) error { return r.idle(ctx, before) },
		func(ctx context.Context) error { return r.requests(ctx, 1) },
		func(ctx context.Context) error { return r.requests(ctx, 64) },
		r.rate,
		r.connects,
		func(ctx context.Context) error { return r.bulk(ctx, load.Up, 1) },
		func(ctx context.Context) error { return r.bulk(ctx, load.Down, 1) },
		func(ctx context.Context) error { return r.bulk(ctx, load.Up, 8) },
		func(ctx context.Context) error { return r.bulk(ctx, load.Down, 8) },
		func(ctx context.Context) error { return r.back(ctx, before) },
	}
	for _, step := range steps {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (r *runner) add(measure, unit string, value float64) { r.out.Add(measure, r.name, unit, value) }

// warm repeats a first request until the way is open.
func (r *runner) warm(ctx context.Context) error {
	deadline := time.Now().Add(warmTimeout)
	for {
		_, err := r.load(ctx, load.Job{Mode: load.Echo, Conns: 1, Requests: 10, Duration: time.Second})
		if err == nil || ctx.Err() != nil {
			return ctx.Err()
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("no way to the server after %v: %w", warmTimeout, err)
		}
		if err := sleep(ctx, 200*time.Millisecond); err != nil {
			return err
		}
	}
}

func (r *runner) bulk(ctx context.Context, mode load.Mode, conns int) error {
	measure := fmt.Sprintf("bulk-%d-%s", conns, mode)
	result, cpu, err := r.timed(ctx, load.Job{Mode: mode, Conns: conns, Duration: r.cfg.Bulk})
	if err != nil {
		return fmt.Errorf("%s: %w", measure, err)
	}
	r.add(measure, "Gbit/s", float64(result.Bytes)*8/1e9/result.Seconds)
	if r.hasProxies() {
		r.add(measure+"-cpu", "CPU-s/GiB", cpu.Seconds()/(float64(result.Bytes)/(1<<30)))
	}
	return nil
}

func (r *runner) requests(ctx context.Context, conns int) error {
	measure := fmt.Sprintf("rr-%d", conns)
	result, cpu, err := r.timed(ctx, load.Job{Mode: load.Echo, Conns: conns, Duration: r.cfg.Requests})
	if err != nil {
		return fmt.Errorf("%s: %w", measure, err)
	}
	r.add(measure, "req/s", float64(result.Count)/result.Seconds)
	r.add(measure+"-p50", "µs", result.P50)
	r.add(measure+"-p99", "µs", result.P99)
	if r.hasProxies() {
		r.add(measure+"-cpu", "CPU-µs/req", float64(cpu.Microseconds())/float64(result.Count))
	}
	return nil
}

// The open loop's rate and connections, as Istio publishes latency at 1,000 requests a second.
const (
	ratePerSecond = 1000
	rateConns     = 16
)

func (r *runner) rate(ctx context.Context) error {
	measure := fmt.Sprintf("rate-%d", ratePerSecond)
	result, cpu, err := r.timed(ctx, load.Job{Mode: load.Rate, Conns: rateConns, RatePerSecond: ratePerSecond, Duration: r.cfg.Requests})
	if err != nil {
		return fmt.Errorf("%s: %w", measure, err)
	}
	r.add(measure+"-p50", "µs", result.P50)
	r.add(measure+"-p90", "µs", result.P90)
	r.add(measure+"-p99", "µs", result.P99)
	if r.hasProxies() {
		r.add(measure+"-cpu", "cores", cpu.Seconds()/result.Seconds)
	}
	return nil
}

// connectors is how many clients make connections at a time: enough to keep two cores busy.
const connectors = 8

func (r *runner) connects(ctx context.Context) error {
	result, cpu, err := r.timed(ctx, load.Job{Mode: load.Connect, Conns: connectors, Duration: r.cfg.Connects})
	if err != nil {
		return fmt.Errorf("conn-warm: %w", err)
	}
	r.add("conn-warm", "conn/s", float64(result.Count)/result.Seconds)
	if r.hasProxies() {
		r.add("conn-warm-cpu", "CPU-µs/conn", float64(cpu.Microseconds())/float64(result.Count))
	}
	return nil
}

func (r *runner) hasProxies() bool { return len(r.running.Proxies) > 0 }

// footprint is what the proxies hold at one moment.
type footprint struct {
	residentKiB float64
	descriptors int
	goroutines  int
}

// footprint waits for memory to settle and reads it.
func (r *runner) footprint(ctx context.Context) (f footprint, err error) {
	if !r.hasProxies() {
		return f, nil
	}
	if err := sleep(ctx, r.cfg.Settle); err != nil {
		return f, err
	}
	if f.residentKiB, err = residentKiB(r.running.Proxies); err != nil {
		return f, err
	}
	if f.descriptors, err = descriptors(r.running.Proxies); err != nil {
		return f, err
	}
	if r.running.Goroutines != nil {
		f.goroutines, err = r.running.Goroutines()
	}
	return f, err
}

func (r *runner) idle(ctx context.Context, before footprint) error {
	if !r.hasProxies() {
		return nil
	}
	return r.hold(ctx, load.Job{Mode: load.Idle}, before)
}

// hold has a job of idle connections done, and tells what they take.
func (r *runner) hold(ctx context.Context, job load.Job, before footprint) error {
	measure := fmt.Sprintf("idle-%d", r.cfg.IdleConns)
	job.Conns, job.Duration = r.cfg.IdleConns, time.Minute
	cmd, in, out, err := r.startLoad(ctx, job)
	if err != nil {
		return fmt.Errorf("%s: %w", measure, err)
	}
	var with footprint
	_, err = io.ReadFull(out, make([]byte, len(idleReady)))
	if err == nil {
		with, err = r.footprint(ctx)
	}
	in.Close()
	rest, _ := io.ReadAll(out)
	if werr := cmd.Wait(); werr != nil {
		err = fmt.Errorf("%w: %s", werr, rest)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", measure, err)
	}
	n := float64(r.cfg.IdleConns)
	r.add(measure, "KiB/conn", (with.residentKiB-before.residentKiB)/n)
	r.add(measure+"-descriptors", "fd/conn", float64(with.descriptors-before.descriptors)/n)
	if r.running.Goroutines != nil {
		r.add(measure+"-goroutines", "goroutines/conn", float64(with.goroutines-before.goroutines)/n)
	}
	return r.released(ctx, before.descriptors)
}

const (
	// releaseTimeout bounds the wait for proxies to close what idle connections
	// held; releasePause is the time without a change after which nothing more is expected.
	releaseTimeout = 10 * time.Second
	releasePause   = time.Second
)

// released waits until the proxies have closed the idle connections, so that
// this work does not count against the next measure.
func (r *runner) released(ctx context.Context, before int) error {
	last, changed := 0, time.Now()
	for deadline := time.Now().Add(releaseTimeout); time.Now().Before(deadline); {
		now, err := descriptors(r.running.Proxies)
		if err != nil {
			return err
		}
		if now != last {
			last, changed = now, time.Now()
		}
		if now <= before || time.Since(changed) > releasePause {
			break
		}
		if err := sleep(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
	return sleep(ctx, releasePause)
}

func (r *runner) back(ctx context.Context, before footprint) error {
	if !r.hasProxies() || r.cfg.Back == 0 {
		return nil
	}
	if err := sleep(ctx, r.cfg.Back); err != nil {
		return err
	}
	after, err := r.footprint(ctx)
	if err != nil {
		return fmt.Errorf("back: %w", err)
	}
	r.add("back", "of before", after.residentKiB/before.residentKiB)
	r.add("back-descriptors", "of before", float64(after.descriptors)/float64(before.descriptors))
	if before.goroutines > 0 {
		r.add("back-goroutines", "of before", float64(after.goroutines)/float64(before.goroutines))
	}
	return nil
}

// timed does a job and tells what processor time the proxies took for it.
func (r *runner) timed(ctx context.Context, job load.Job) (load.Result, time.Duration, error) {
	before, err := cpuTime(r.running.Proxies)
	if err != nil {
		return load.Result{}, 0, err
	}
	result, err := r.load(ctx, job)
	if err != nil {
		return result, 0, err
	}
	after, err := cpuTime(r.running.Proxies)
	if err == nil && result.Count == 0 {
		err = errors.New("nothing was carried")
	}
	return result, after - before, err
}

// loadTimeout bounds a load process beyond the duration of its job.
const loadTimeout = 60 * time.Second

// load runs a client process in the client pod.
func (r *runner) load(ctx context.Context, job load.Job) (load.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, job.Duration+loadTimeout)
	defer cancel()
	cmd, in, out, err := r.startLoad(ctx, job)
	if err != nil {
		return load.Result{}, err
	}
	defer in.Close()
	b, err := io.ReadAll(out)
	if werr := cmd.Wait(); werr != nil {
		return load.Result{}, fmt.Errorf("%w: %s", werr, strings.TrimSpace(cmd.Stderr.(*strings.Builder).String()))
	}
	if err != nil {
		return load.Result{}, err
	}
	var result load.Result
	return result, json.Unmarshal(b, &result)
}

func (r *runner) startLoad(ctx context.Context, job load.Job) (*exec.Cmd, io.WriteCloser, io.ReadCloser, error) {
	job.Addr = r.running.Addr
	arg, err := json.Marshal(job)
	if err != nil {
		return nil, nil, nil, err
	}
	cmd := exec.CommandContext(ctx, r.self, "load", string(arg))
	cmd.Stderr = new(strings.Builder)
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, nil, nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, nil, nil, err
	}
	return cmd, in, out, r.top.Client.Start(cmd)
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
