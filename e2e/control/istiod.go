package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// istiod is the control plane's process.
type istiod struct {
	cmd                     *exec.Cmd
	started                 time.Time
	address, metrics, admin string
	done                    chan struct{}
	err                     error
}

// ports are where istiod-lite listens, each time it is started.
type ports struct{ xds, metrics, admin string }

func choosePorts() (ports, error) {
	var addresses []string
	for range 3 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return ports{}, err
		}
		defer l.Close()
		addresses = append(addresses, l.Addr().String())
	}
	return ports{addresses[0], addresses[1], addresses[2]}, nil
}

// startIstiod starts the process; it dies with this one.
func startIstiod(bin, kubeconfig, log string, at ports) (*istiod, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	i := &istiod{address: at.xds, metrics: at.metrics, admin: at.admin, done: make(chan struct{})}
	i.cmd = exec.Command(filepath.Join(bin, "istiod-lite"), "--kubernetes", "--kubeconfig", kubeconfig, "--pod-namespace", systemNamespace,
		"--listen", at.xds, "--metrics", at.metrics, "--admin", at.admin)
	i.cmd.Stdout, i.cmd.Stderr = out, out
	i.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	started := make(chan error, 1)
	i.started = time.Now()
	go func() {
		// The kernel sends Pdeathsig when the thread that started the process ends.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(i.done)
		defer out.Close()
		err := i.cmd.Start()
		started <- err
		if err == nil {
			i.err = i.cmd.Wait()
		}
	}()
	return i, <-started
}

// ready waits until the process says so, and returns how long that took.
func (i *istiod) ready(ctx context.Context) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, phaseTimeout)
	defer cancel()
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	for {
		if _, err := get(ctx, "http://"+i.metrics+"/healthz/ready"); err == nil {
			return time.Since(i.started), nil
		}
		select {
		case <-ctx.Done():
			return 0, fmt.Errorf("istiod-lite is not ready: %w", context.Cause(ctx))
		case <-i.done:
			return 0, fmt.Errorf("istiod-lite has ended: %v", i.err)
		case <-ticker.C:
		}
	}
}

// stop ends the process in order.
func (i *istiod) stop() error {
	i.cmd.Process.Signal(syscall.SIGTERM)
	timer := time.NewTimer(phaseTimeout)
	defer timer.Stop()
	select {
	case <-i.done:
		return i.err
	case <-timer.C:
		i.cmd.Process.Kill()
		<-i.done
		return fmt.Errorf("istiod-lite did not end within %v", phaseTimeout)
	}
}

func get(ctx context.Context, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<20))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", url, resp.Status)
	}
	return body, err
}

// sample is what the process has spent and sent since it was started.
type sample struct {
	at                          time.Time
	cpu                         time.Duration
	bytes, pushes, certificates float64
	publications                float64
	residentBytes, peakBytes    float64
	heapBytes                   float64
}

// sample reads the process's metrics, and its memory from the kernel.
func (i *istiod) sample(ctx context.Context) (sample, error) {
	body, err := get(ctx, "http://"+i.metrics+"/metrics")
	if err != nil {
		return sample{}, err
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(body))
	if err != nil {
		return sample{}, fmt.Errorf("metrics of istiod-lite: %w", err)
	}
	s := sample{
		at:           time.Now(),
		cpu:          time.Duration(total(families["process_cpu_seconds_total"]) * float64(time.Second)),
		bytes:        total(families["pilot_xds_send_bytes_total"]),
		pushes:       total(families["pilot_xds_pushes"]),
		certificates: total(families["citadel_server_success_cert_issuance_count"]),
		heapBytes:    total(families["go_memstats_heap_alloc_bytes"]),
	}
	for _, m := range families["pilot_pushcontext_init_seconds"].GetMetric() {
		s.publications = float64(m.GetHistogram().GetSampleCount())
	}
	s.residentBytes, s.peakBytes, err = i.memory()
	return s, err
}

func total(f *dto.MetricFamily) float64 {
	sum := 0.0
	for _, m := range f.GetMetric() {
		sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
	}
	return sum
}

// memory reads what is resident and the most that ever was (proc_pid_status(5)).
func (i *istiod) memory() (resident, peak float64, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", i.cmd.Process.Pid))
	if err != nil {
		return 0, 0, err
	}
	return parseStatus(string(b))
}

func parseStatus(status string) (resident, peak float64, err error) {
	for line := range strings.Lines(status) {
		name, value, _ := strings.Cut(line, ":")
		var into *float64
		switch name {
		case "VmRSS":
			into = &resident
		case "VmHWM":
			into = &peak
		default:
			continue
		}
		kib, err := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 64)
		if err != nil {
			return 0, 0, fmt.Errorf("%s: %w", name, err)
		}
		*into = kib * 1024
	}
	if resident == 0 || peak == 0 {
		return 0, 0, fmt.Errorf("no VmRSS or VmHWM in the status of istiod-lite")
	}
	return resident, peak, nil
}
