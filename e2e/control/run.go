package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tulle-mesh/tulle/e2e/bench/report"
	"github.com/tulle-mesh/tulle/internal/kubetest"
)

// variant names the measured program in the results.
const variant = "istiod-lite"

// bench is one run.
type bench struct {
	opts    options
	dir     string // of what is thrown away
	logs    string // of logs and profiles
	api     *kubetest.API
	mesh    *mesh
	pods    *population
	tracker *tracker
	proxies *proxies
	ports   ports
	istiod  *istiod
	report  report.Report
	peak    float64
	started time.Time
}

func run(ctx context.Context, opts options) error {
	dir, err := os.MkdirTemp("", "bench-control-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	logs := dir
	if opts.logs != "" {
		logs = opts.logs
		if err := os.MkdirAll(logs, 0o755); err != nil {
			return err
		}
	}
	b := &bench{opts: opts, dir: dir, logs: logs, tracker: newTracker(opts.nodes), started: time.Now()}
	defer b.close()
	for _, phase := range []func(context.Context) error{b.make, b.start, b.rest, b.churn, b.certify, b.restart} {
		if err := phase(ctx); err != nil {
			return err
		}
	}
	b.report.Add("memory-peak", variant, "MiB", b.peak/(1<<20))
	if err := b.report.WriteTable(os.Stdout, nil); err != nil {
		return err
	}
	writeMarks(os.Stdout, b.report.Rows())
	return b.report.WriteJSON(opts.out)
}

func (b *bench) close() {
	if b.proxies != nil {
		b.proxies.stop()
	}
	if b.istiod != nil {
		b.istiod.stop()
	}
	if b.api != nil {
		b.api.Stop()
	}
}

func (b *bench) say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "%6.1f s  %s\n", time.Since(b.started).Seconds(), fmt.Sprintf(format, args...))
}

func (b *bench) add(name, unit string, value float64) { b.report.Add(name, variant, unit, value) }

// make starts the API and writes the mesh's objects.
func (b *bench) make(ctx context.Context) error {
	options := kubetest.Options{ControllerManager: b.opts.controllers, Controllers: []string{"endpointslice-controller"}}
	var err error
	if b.api, err = kubetest.Launch(ctx, filepath.Join(b.dir, "api"), options); err != nil {
		return err
	}
	b.say("the API serves")
	if b.mesh, err = newMesh(b.api, b.opts); err != nil {
		return err
	}
	if err := b.mesh.make(ctx); err != nil {
		return err
	}
	b.say("%d services on %d nodes", b.opts.services, b.opts.nodes)
	if b.pods, err = populate(ctx, b.mesh, b.tracker); err != nil {
		return err
	}
	b.say("%d pods", b.opts.pods)
	return nil
}

// start runs the control plane and then all proxies, which know nothing yet.
func (b *bench) start(ctx context.Context) error {
	var err error
	if b.ports, err = choosePorts(); err != nil {
		return err
	}
	if err := b.launch(); err != nil {
		return err
	}
	ready, err := b.istiod.ready(ctx)
	if err != nil {
		return err
	}
	b.add("start-to-ready", "s", ready.Seconds())
	b.say("istiod-lite is ready after %v", ready.Round(time.Millisecond))
	roots, err := b.roots(ctx)
	if err != nil {
		return err
	}
	if b.proxies, err = startProxies(ctx, b.mesh, b.tracker, b.dir, roots, b.ports.xds); err != nil {
		return err
	}
	took, err := b.proxies.synced(ctx, b.proxies.began)
	if err != nil {
		return err
	}
	n, err := b.proxies.resources()
	if err != nil {
		return err
	}
	b.add("connect-to-synced", "s", took.Seconds())
	b.say("%d proxies hold %d resources each after %v", b.opts.nodes, n, took.Round(time.Millisecond))
	return nil
}

func (b *bench) launch() (err error) {
	b.istiod, err = startIstiod(b.opts.bin, b.api.Kubeconfig, filepath.Join(b.logs, "istiod-lite.log"), b.ports)
	return err
}

// roots waits for the ConfigMap with the root certificates and writes a file.
func (b *bench) roots(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, phaseTimeout)
	defer cancel()
	for {
		cm, err := b.mesh.client.CoreV1().ConfigMaps(systemNamespace).Get(ctx, "istio-ca-root-cert", metav1.GetOptions{})
		if err == nil && cm.Data["root-cert.pem"] != "" {
			path := filepath.Join(b.dir, "root-cert.pem")
			return path, os.WriteFile(path, []byte(cm.Data["root-cert.pem"]), 0o644)
		}
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("ConfigMap istio-ca-root-cert: %w", err)
		case <-time.After(10 * pollInterval):
		}
	}
}

// rest measures what the control plane costs when nothing happens.
func (b *bench) rest(ctx context.Context) error {
	if err := sleep(ctx, b.opts.settle); err != nil {
		return err
	}
	first, err := b.istiod.sample(ctx)
	if err != nil {
		return err
	}
	if err := sleep(ctx, b.opts.settle); err != nil {
		return err
	}
	last, err := b.istiod.sample(ctx)
	if err != nil {
		return err
	}
	b.saw(last)
	b.add("rest-memory", "MiB", last.residentBytes/(1<<20))
	b.add("rest-cpu", "cores", (last.cpu-first.cpu).Seconds()/last.at.Sub(first.at).Seconds())
	b.say("at rest: %.0f MiB resident, %.0f MiB heap, %.0f MiB at most so far", last.residentBytes/(1<<20), last.heapBytes/(1<<20), last.peakBytes/(1<<20))
	return b.profile(ctx, "heap-rest", "heap")
}

// churn measures rounds of changes.
func (b *bench) churn(ctx context.Context) error {
	for round := range b.opts.rounds {
		first, err := b.istiod.sample(ctx)
		if err != nil {
			return err
		}
		profiled := make(chan error, 1)
		go func() {
			if round > 0 {
				profiled <- nil
				return
			}
			profiled <- b.profile(ctx, "cpu-churn", fmt.Sprintf("profile?seconds=%d", int(b.opts.round/time.Second)))
		}()
		written, err := b.pods.churn(ctx, b.opts.rate, b.opts.round)
		if err != nil {
			return err
		}
		last, err := b.istiod.sample(ctx)
		if err != nil {
			return err
		}
		if err := b.tracker.arrived(ctx); err != nil {
			return err
		}
		if err := <-profiled; err != nil {
			return err
		}
		end, err := b.istiod.sample(ctx)
		if err != nil {
			return err
		}
		b.saw(end)
		times := b.tracker.take()
		elapsed := last.at.Sub(first.at).Seconds()
		p50, p99 := percentile(times.whole, 50), percentile(times.whole, 99)
		cpu := (last.cpu - first.cpu).Seconds() / elapsed
		milliseconds := func(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
		b.add("change-p50", "ms", milliseconds(p50))
		b.add("change-p99", "ms", milliseconds(p99))
		b.add("change-max", "ms", milliseconds(percentile(times.whole, 100)))
		b.add("api-write-p50", "ms", milliseconds(percentile(times.write, 50)))
		b.add("api-write-p99", "ms", milliseconds(percentile(times.write, 99)))
		b.add("after-write-p50", "ms", milliseconds(percentile(times.after, 50)))
		b.add("after-write-p99", "ms", milliseconds(percentile(times.after, 99)))
		b.add("change-lost", "changes", float64(times.lost))
		b.add("change-rate", "changes/s", float64(written)/elapsed)
		b.add("churn-cpu", "cores", cpu)
		b.add("churn-memory", "MiB", last.residentBytes/(1<<20))
		b.add("churn-publications", "1/s", (last.publications-first.publications)/elapsed)
		b.add("churn-responses", "1/s", (last.pushes-first.pushes)/elapsed)
		b.add("bytes-per-change", "bytes", (end.bytes-first.bytes)/float64(written))
		b.add("bytes-per-change-and-proxy", "bytes", (end.bytes-first.bytes)/float64(written*b.opts.nodes))
		b.say("round %d: %d changes, p50 %v, p99 %v, %.2f cores, %.0f MiB, %.1f publications/s", round+1, written,
			p50.Round(time.Millisecond), p99.Round(time.Millisecond), cpu, last.residentBytes/(1<<20), (last.publications-first.publications)/elapsed)
	}
	if err := b.profile(ctx, "heap-churn", "heap"); err != nil {
		return err
	}
	_, err := b.proxies.resources()
	return err
}

// certify measures the certificate authority.
func (b *bench) certify(ctx context.Context) error {
	first, err := b.istiod.sample(ctx)
	if err != nil {
		return err
	}
	profiled := make(chan error, 1)
	go func() {
		profiled <- b.profile(ctx, "cpu-certificates", fmt.Sprintf("profile?seconds=%d", max(1, int(b.opts.certificates/time.Second))))
	}()
	if err := certify(ctx, b.proxies, b.pods.some(), b.ports.xds, b.opts.certificates); err != nil {
		return err
	}
	if err := <-profiled; err != nil {
		return err
	}
	last, err := b.istiod.sample(ctx)
	if err != nil {
		return err
	}
	b.saw(last)
	issued, cpu := last.certificates-first.certificates, (last.cpu - first.cpu).Seconds()
	b.add("certificates", "1/s", issued/b.opts.certificates.Seconds())
	b.add("certificates-per-core", "1/core-s", issued/cpu)
	b.say("%.0f certificates, %.0f for each second of CPU", issued, issued/cpu)
	return nil
}

// restart ends the process in order and starts another one, while the proxies
// come again with what they hold.
func (b *bench) restart(ctx context.Context) error {
	if err := b.istiod.stop(); err != nil {
		return fmt.Errorf("stop istiod-lite: %w", err)
	}
	if err := b.launch(); err != nil {
		return err
	}
	ready, err := b.istiod.ready(ctx)
	if err != nil {
		return err
	}
	took, err := b.proxies.synced(ctx, b.istiod.started)
	if err != nil {
		return err
	}
	s, err := b.istiod.sample(ctx)
	if err != nil {
		return err
	}
	b.saw(s)
	b.add("restart-to-ready", "s", ready.Seconds())
	b.add("restart-to-synced", "s", took.Seconds())
	b.add("restart-bytes", "bytes", s.bytes)
	b.say("restarted: ready after %v, all proxies in sync after %v, %.0f bytes sent", ready.Round(time.Millisecond), took.Round(time.Millisecond), s.bytes)
	if _, err := b.proxies.resources(); err != nil {
		return err
	}
	if err := sleep(ctx, b.opts.settle); err != nil {
		return err
	}
	if s, err = b.istiod.sample(ctx); err != nil {
		return err
	}
	b.saw(s)
	b.add("restart-memory", "MiB", s.residentBytes/(1<<20))
	return b.profile(ctx, "heap-restart", "heap")
}

// saw keeps the most memory that any process had.
func (b *bench) saw(s sample) { b.peak = max(b.peak, s.peakBytes) }

// profile writes one of istiod-lite's profiles beside its log, if they are asked
// for.
func (b *bench) profile(ctx context.Context, name, path string) error {
	if !b.opts.profile {
		return nil
	}
	body, err := get(ctx, "http://"+b.istiod.admin+"/debug/pprof/"+path)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(b.logs, name+".pprof"), body, 0o644)
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
