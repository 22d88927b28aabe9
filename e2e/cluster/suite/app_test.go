package suite_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/remotecommand"
)

// pod is one to run the test app's commands in.
type pod struct {
	space    *space
	name     string
	ip, node string
}

// as is the same pod in a subtest.
func (p *pod) as(t *testing.T) *pod {
	c, s := *p, *p.space
	s.t = t
	c.space = &s
	return &c
}

// execWithin bounds a command that waits for nothing but one request.
const execWithin = 40 * time.Second

// exec runs a command in the pod.
func (p *pod) exec(args ...string) (stdout string, err error) {
	return p.space.exec(p.name, args...)
}

func (s *space) exec(pod string, args ...string) (stdout string, err error) {
	req := suite.client.CoreV1().RESTClient().Post().Resource("pods").Namespace(s.name).Name(pod).SubResource("exec").
		VersionedParams(&corev1.PodExecOptions{Command: args, Stdout: true, Stderr: true}, scheme.ParameterCodec)
	executor, err := remotecommand.NewWebSocketExecutor(suite.config, "GET", req.URL().String())
	if err != nil {
		return "", err
	}
	// Not the test's context: loads are stopped after it has ended.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.t.Context()), execWithin)
	defer cancel()
	var out, errs bytes.Buffer
	if err := executor.StreamWithContext(ctx, remotecommand.StreamOptions{Stdout: &out, Stderr: &errs}); err != nil {
		return out.String(), fmt.Errorf("%s: %s: %w: %s", pod, strings.Join(args, " "), err, strings.TrimSpace(out.String()+" "+errs.String()))
	}
	return out.String(), nil
}

// answer is what the test app's server tells.
type answer struct {
	Pod, Node, IP, Client, Version, Marker string
}

// get makes one request on a connection of its own.
func (p *pod) get(url string) (answer, error) {
	out, err := p.exec("app", "get", url)
	if err != nil {
		return answer{}, err
	}
	var a answer
	if err := json.Unmarshal([]byte(out), &a); err != nil {
		return a, fmt.Errorf("%w in %q", err, out)
	}
	return a, nil
}

// reaches waits until the server answers: a policy or a label has to get around first.
func (p *pod) reaches(url string) answer {
	p.space.t.Helper()
	var a answer
	eventually(p.space.t, within, p.name+" reaches "+url, func() (err error) {
		a, err = p.get(url)
		return err
	})
	return a
}

// refused waits until the server does not answer, and stays so.
func (p *pod) refused(url string) {
	p.space.t.Helper()
	ask := func() error {
		if a, err := p.get(url); err == nil {
			return fmt.Errorf("answered by %s", a.Pod)
		}
		return nil
	}
	eventually(p.space.t, within, p.name+" is refused by "+url, ask)
	holds(p.space.t, time.Second, p.name+" stays refused by "+url, ask)
}

// loadResult is what became of a load's requests.
type loadResult struct {
	Sent, OK, Failed, Late, SinceFailure int
	Reasons, Pods, Versions, Clients     map[string]int
	Failures                             []struct {
		At            time.Time
		Ms            float64
		Reason, Error string
	}
	P50ms, P99ms, MaxMs, Seconds float64
}

func (r loadResult) String() string {
	text := fmt.Sprintf("%d requests in %.1f s, %d failed, p50 %.1f ms, p99 %.1f ms, max %.0f ms", r.Sent, r.Seconds, r.Failed, r.P50ms, r.P99ms, r.MaxMs)
	if r.Late > 0 {
		text += fmt.Sprintf(", %d late", r.Late)
	}
	if r.Failed > 0 {
		text += fmt.Sprintf("; reasons %v", r.Reasons)
		for i, f := range r.Failures {
			if i == 10 {
				text += fmt.Sprintf("\n    … and %d more", r.Failed-i)
				break
			}
			text += fmt.Sprintf("\n    %s after %.0f ms: %s", f.At.Format("15:04:05.000"), f.Ms, f.Error)
		}
	}
	return text
}

// job is a load or a held connection in the background of a pod.
type job struct {
	pod     *pod
	id      string
	stopped bool
}

// start starts a job; it is stopped with the test at the latest.
func (p *pod) start(args ...string) *job {
	p.space.t.Helper()
	id, err := p.exec(append([]string{"app", "start"}, args...)...)
	if err != nil {
		p.space.t.Fatal(err)
	}
	j := &job{pod: p, id: strings.TrimSpace(id)}
	p.space.t.Cleanup(func() {
		if !j.stopped {
			_, _ = p.exec("app", "stop", j.id)
		}
	})
	return j
}

// load starts requests at a rate, each on a connection of its own.
func (p *pod) load(url string, rate int, more ...string) *job {
	p.space.t.Helper()
	return p.start(append([]string{"load", "--url=" + url, fmt.Sprintf("--rate=%d", rate), "--workers=64", "--marker=" + p.space.marker}, more...)...)
}

// hold keeps one connection to an echo server.
func (p *pod) hold(addr string, more ...string) *job {
	p.space.t.Helper()
	return p.start(append([]string{"hold", "--addr=" + addr, "--marker=" + p.space.marker}, more...)...)
}

// ask reads a job's state into v.
func (j *job) ask(verb string, v any) error {
	out, err := j.pod.exec("app", verb, j.id)
	if err != nil {
		return err
	}
	return json.Unmarshal([]byte(out), v)
}

// mustAsk asks again when the way to the pod fails, which is none of the mesh's: the
// kubelet's or the API server's. Asking changes nothing, nor does stopping twice.
func (j *job) mustAsk(verb string, v any) {
	j.pod.space.t.Helper()
	eventually(j.pod.space.t, within, verb+" job "+j.id+" of "+j.pod.name, func() error { return j.ask(verb, v) })
}

// peek is the result so far.
func (j *job) peek() loadResult {
	j.pod.space.t.Helper()
	var r loadResult
	j.mustAsk("peek", &r)
	return r
}

// stop ends the load and returns its result.
func (j *job) stop() loadResult {
	j.pod.space.t.Helper()
	var r loadResult
	j.mustAsk("stop", &r)
	j.stopped = true
	return r
}

// passes waits until n more requests were answered, without one that failed in between.
func (j *job) passes(n int, bound time.Duration) {
	j.pod.space.t.Helper()
	before := j.peek()
	eventually(j.pod.space.t, bound, fmt.Sprintf("%d requests in a row are answered", n), func() error {
		r := j.peek()
		if r.OK < before.OK+n || r.SinceFailure < n {
			return errors.New(r.String())
		}
		return nil
	})
}

// stopClean ends the load, in which no request may have failed.
func (j *job) stopClean(what string) loadResult {
	j.pod.space.t.Helper()
	r := j.stop()
	if r.Failed > 0 || r.Sent == 0 {
		j.pod.space.t.Errorf("%s: %s", what, r)
	} else {
		j.pod.space.t.Logf("%s: %s", what, r)
	}
	return r
}

// holdResult is the life of a held connection.
type holdResult struct {
	Connected, Echoed int
	Breaks            []struct {
		At            time.Time
		Ms            float64
		Reason, Error string
	}
	Running bool
	Seconds float64
	Peer    string
}

func (j *job) held() holdResult {
	j.pod.space.t.Helper()
	var r holdResult
	j.mustAsk("peek", &r)
	return r
}
