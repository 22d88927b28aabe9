package measure

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/protobuf/proto"

	"github.com/tulle-mesh/tulle/e2e/bench/load"
	"github.com/tulle-mesh/tulle/e2e/bench/plain"
	"github.com/tulle-mesh/tulle/e2e/bench/report"
	"github.com/tulle-mesh/tulle/e2e/bench/topology"
	"github.com/tulle-mesh/tulle/e2e/bench/variant"
)

// HTTPConfig says how long and how much of HTTP.
type HTTPConfig struct {
	// Closed and Rate are the durations of each closed loop and of the open loop.
	Closed, Rate time.Duration
	// Idle is how many idle connections are held, Settle the time that memory gets to
	// settle before it is read.
	Idle   int
	Settle time.Duration
	// Only names the measures to take: idle, rate, http1, http2, grpc. Empty takes all.
	Only []string
	// Dir takes the content of requests.
	Dir string
}

// Measures are the names of HTTPConfig.Only.
var Measures = []string{"idle", "rate", "http1", "http2", "grpc"}

// Direct is what the open loop measured without a proxy, in the same round.
type Direct struct{ p50, p99 float64 }

type httpRunner struct {
	*runner
	cfg    HTTPConfig
	direct *Direct
}

// RunHTTP measures a started variant of HTTP and adds the samples to out. What the open
// loop adds to direct is told when that was measured before in the round.
func RunHTTP(ctx context.Context, cfg HTTPConfig, direct *Direct, self, name string, running variant.Running, top *topology.Topology, out *report.Report) error {
	running.Addr = running.HTTP.HTTP1
	r := &httpRunner{&runner{Config{Settle: cfg.Settle, IdleConns: cfg.Idle}, self, name, running, top, out}, cfg, direct}
	if err := r.warm(ctx); err != nil {
		return err
	}
	steps := []struct {
		name string
		run  func(context.Context) error
		full bool
	}{
		// Idle comes first: memory that load has left behind would hide what connections need.
		{"idle", r.idle, true},
		{"rate", r.rate, true},
		{"http1", func(ctx context.Context) error { return r.closed(ctx, "http1-64", running.HTTP.HTTP1, 64, "--h1") }, false},
		{"http2", func(ctx context.Context) error { return r.closed(ctx, "http2-8x8", running.HTTP.HTTP2, 8, "-m8") }, true},
		{"grpc", r.grpc, true},
	}
	for _, step := range steps {
		if step.full && !running.HTTP.Full || len(cfg.Only) > 0 && !slices.Contains(cfg.Only, step.name) {
			continue
		}
		if err := step.run(ctx); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	return nil
}

func (r *httpRunner) job(mode load.Mode) load.Job {
	return load.Job{Mode: mode, Path: r.running.HTTP.Path, Header: r.running.HTTP.Header}
}

// warm repeats first requests until the way is open, and leads through the proxy.
func (r *httpRunner) warm(ctx context.Context) error {
	deadline := time.Now().Add(warmTimeout)
	for {
		job := r.job(load.HTTPEcho)
		job.Conns, job.Requests, job.Duration = 1, 10, time.Second
		_, err := r.load(ctx, job)
		if err == nil && r.running.Passed != nil {
			var n float64
			if n, err = r.running.Passed(); err == nil && n == 0 {
				err = errors.New("requests are answered, and do not pass the proxy")
			}
		}
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

// idle holds connections that carried one request each.
func (r *httpRunner) idle(ctx context.Context) error {
	if !r.hasProxies() {
		return nil
	}
	before, err := r.footprint(ctx)
	if err != nil {
		return err
	}
	return r.hold(ctx, r.job(load.HTTPIdle), before)
}

func (r *httpRunner) rate(ctx context.Context) error {
	measure := fmt.Sprintf("rate-%d", ratePerSecond)
	job := r.job(load.HTTPRate)
	job.Conns, job.RatePerSecond, job.Duration = rateConns, ratePerSecond, r.cfg.Rate
	result, cpu, err := r.timed(ctx, job)
	if err != nil {
		return err
	}
	r.add(measure+"-p50", "µs", result.P50)
	r.add(measure+"-p99", "µs", result.P99)
	if !r.hasProxies() {
		*r.direct = Direct{p50: result.P50, p99: result.P99}
		return nil
	}
	if r.direct.p50 > 0 {
		r.add(measure+"-added-p50", "µs", result.P50-r.direct.p50)
		r.add(measure+"-added-p99", "µs", result.P99-r.direct.p99)
	}
	r.add(measure+"-cpu", "cores", cpu.Seconds()/result.Seconds)
	kib, err := residentKiB(r.running.Proxies)
	if err != nil {
		return err
	}
	r.add(measure+"-memory", "MiB", kib/1024)
	return nil
}

// grpc makes unary calls, with a request of 64 bytes and a response of 1 KiB.
func (r *httpRunner) grpc(ctx context.Context) error {
	message, err := proto.Marshal(&grpc_testing.SimpleRequest{
		ResponseSize: load.ResponseBytes, Payload: &grpc_testing.Payload{Body: make([]byte, 64)},
	})
	if err != nil {
		return err
	}
	framed := append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...)
	path := filepath.Join(r.cfg.Dir, "grpc-request")
	if err := os.WriteFile(path, framed, 0o600); err != nil {
		return err
	}
	return r.closed(ctx, "grpc-8x8", r.running.HTTP.GRPC, 8, "-m8", "-d", path, "-H", "content-type: application/grpc", "-H", "te: trailers")
}

// warmRequests go before a closed loop, so that its connections to the application stand.
const warmRequests = 2000

// closed runs h2load, which is no proxy's code, against addr.
func (r *httpRunner) closed(ctx context.Context, measure, addr string, conns int, args ...string) error {
	path := r.running.HTTP.Path
	if slices.Contains(args, "-d") {
		path = plain.Method
	}
	for _, line := range r.running.HTTP.Header {
		args = append(args, "-H", line)
	}
	args = append(args, "-t1", "-c"+strconv.Itoa(conns))
	url := "http://" + addr + path
	if _, err := r.h2load(ctx, append(args, "-n"+strconv.Itoa(warmRequests), url)...); err != nil {
		return err
	}
	before, err := cpuTime(r.running.Proxies)
	if err != nil {
		return err
	}
	start := time.Now()
	count, err := r.h2load(ctx, append(args, "-D"+strconv.FormatInt(r.cfg.Closed.Milliseconds(), 10)+"ms", url)...)
	if err != nil {
		return err
	}
	seconds := time.Since(start).Seconds()
	after, err := cpuTime(r.running.Proxies)
	if err != nil {
		return err
	}
	r.add(measure, "req/s", count/seconds)
	if r.hasProxies() {
		r.add(measure+"-per-core", "req/CPU-s", count/(after-before).Seconds())
	}
	return nil
}

// What h2load says of its requests.
var (
	h2loadCounts  = regexp.MustCompile(`requests: \d+ total, \d+ started, (\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout`)
	h2loadStatus  = regexp.MustCompile(`status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx`)
	h2loadTraffic = regexp.MustCompile(`traffic: .*\((\d+)\) data`)
)

// h2load returns how many requests were answered as they should.
func (r *httpRunner) h2load(ctx context.Context, args ...string) (float64, error) {
	program, err := exec.LookPath("h2load")
	if err != nil {
		return 0, fmt.Errorf("%w: apt-get install nghttp2-client", variant.ErrMissing)
	}
	ctx, cancel := context.WithTimeout(ctx, r.cfg.Closed+loadTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := r.top.Client.Start(cmd); err != nil {
		return 0, err
	}
	if err := cmd.Wait(); err != nil {
		return 0, fmt.Errorf("h2load: %w: %s", err, out.String())
	}
	return parseH2load(out.String())
}

// parseH2load counts the requests that h2load saw answered. It fails when some were not,
// or got less than their content: gRPC's errors come with status 200.
func parseH2load(text string) (float64, error) {
	counts, status, traffic := h2loadCounts.FindStringSubmatch(text), h2loadStatus.FindStringSubmatch(text), h2loadTraffic.FindStringSubmatch(text)
	if counts == nil || status == nil || traffic == nil {
		return 0, fmt.Errorf("h2load said no counts: %s", text)
	}
	wrong := func(n string) bool { return n != "0" }
	if slices.ContainsFunc(counts[3:], wrong) || counts[2] == "0" || slices.ContainsFunc(status[2:], wrong) {
		return 0, fmt.Errorf("requests failed: %s; %s", counts[0], status[0])
	}
	count, err := strconv.ParseFloat(counts[2], 64)
	if err != nil {
		return 0, err
	}
	bytes, err := strconv.ParseFloat(traffic[1], 64)
	if err == nil && bytes < count*load.ResponseBytes {
		err = fmt.Errorf("%v requests got %v bytes of content", count, bytes)
	}
	return count, err
}
