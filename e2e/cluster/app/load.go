package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// markerHeader carries a secret that must never be seen between nodes in the clear.
const markerHeader = "X-Marker"

// maxTold bounds how many failures are told one by one.
const maxTold = 50

// Ways to use connections.
const (
	fresh = "fresh" // one for each request
	kept  = "kept"  // HTTP/1.1, as many as there are requests at one time
	h2    = "h2"    // HTTP/2 by prior knowledge, h2Connections of them
)

// h2Connections is how many connections a load of h2 has.
const h2Connections = 4

// loadSpec is what to send. Each request has a connection of its own, unless
// Connections says otherwise.
type loadSpec struct {
	URL string
	// Rate is in requests per second, sent at their times whatever became of the
	// ones before; 0 sends the next when a worker is free.
	Rate float64
	// Workers bounds the requests that are under way; a request that finds no worker waits.
	Workers int
	// Timeout bounds a request, from the resolution of the name to the last byte.
	Timeout time.Duration
	// Duration and Requests end the load, whichever comes first; 0 is no bound.
	Duration time.Duration
	Requests int
	Marker   string
	// Connections is fresh, kept or h2.
	Connections string
}

func (s *loadSpec) add(f *flag.FlagSet) {
	f.StringVar(&s.URL, "url", "", "what to get")
	f.Float64Var(&s.Rate, "rate", 0, "requests per second; 0 is as many as the workers make")
	f.IntVar(&s.Workers, "workers", 16, "requests under way at most")
	f.DurationVar(&s.Timeout, "timeout", 5*time.Second, "for one request")
	f.DurationVar(&s.Duration, "duration", 0, "end after this time; 0 is until stopped")
	f.IntVar(&s.Requests, "requests", 0, "end after so many; 0 is no bound")
	f.StringVar(&s.Connections, "connections", fresh, "fresh: one for each request; kept: HTTP/1.1; h2: HTTP/2 by prior knowledge")
	f.StringVar(&s.Marker, "marker", os.Getenv("MARKER"), "sent in a header with each request ($MARKER)")
}

// loadResult is what became of the requests: Sent is OK plus Failed.
type loadResult struct {
	Sent   int `json:"sent"`
	OK     int `json:"ok"`
	Failed int `json:"failed"`
	// Reasons counts the failures, Pods and Versions the answers by who gave them,
	// Clients the addresses that servers saw.
	Reasons  map[string]int `json:"reasons,omitempty"`
	Pods     map[string]int `json:"pods,omitempty"`
	Versions map[string]int `json:"versions,omitempty"`
	Clients  map[string]int `json:"clients,omitempty"`
	// Failures tells the first ones.
	Failures []failure `json:"failures,omitempty"`
	// Times of the answered requests, in milliseconds, and for how long was sent.
	P50ms   float64 `json:"p50ms"`
	P99ms   float64 `json:"p99ms"`
	MaxMs   float64 `json:"maxMs"`
	Seconds float64 `json:"seconds"`
	// Late counts requests that began more than 100 ms after their time, because all
	// workers were busy or the machine was.
	Late int `json:"late,omitempty"`
	// SinceFailure is how many requests have been answered since the last failure.
	SinceFailure int `json:"sinceFailure"`
}

type failure struct {
	At     time.Time `json:"at"`
	Ms     float64   `json:"ms"`
	Reason string    `json:"reason"`
	Error  string    `json:"error"`
}

// load runs one spec. Its result can be looked at while it runs.
type load struct {
	spec  loadSpec
	begun time.Time
	// transports are taken in turns; none where each request has its own.
	transports []*http.Transport
	turn       atomic.Uint64

	mu     sync.Mutex
	result loadResult
	times  []time.Duration
	ended  time.Time
}

func newLoad(spec loadSpec) (*load, error) {
	if spec.URL == "" {
		return nil, usageError{fmt.Errorf("load: --url is needed")}
	}
	if spec.Workers < 1 {
		return nil, usageError{fmt.Errorf("load: --workers %d: at least 1", spec.Workers)}
	}
	l := &load{spec: spec, begun: time.Now(), result: loadResult{
		Reasons: map[string]int{}, Pods: map[string]int{}, Versions: map[string]int{}, Clients: map[string]int{},
	}}
	switch spec.Connections {
	case fresh, "":
	case kept:
		l.transports = []*http.Transport{{DialContext: (&net.Dialer{}).DialContext, MaxIdleConnsPerHost: spec.Workers}}
	case h2:
		for range h2Connections {
			protocols := new(http.Protocols)
			protocols.SetUnencryptedHTTP2(true)
			l.transports = append(l.transports, &http.Transport{DialContext: (&net.Dialer{}).DialContext, Protocols: protocols})
		}
	default:
		return nil, usageError{fmt.Errorf("load: --connections %q: must be fresh, kept or h2", spec.Connections)}
	}
	return l, nil
}

// run sends until ctx ends or the spec is done. Requests under way are waited for.
func (l *load) run(ctx context.Context) {
	if l.spec.Duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, l.spec.Duration)
		defer cancel()
	}
	due := make(chan time.Time)
	var workers sync.WaitGroup
	for range l.spec.Workers {
		workers.Go(func() {
			for at := range due {
				l.request(at)
			}
		})
	}
	l.schedule(ctx, due)
	close(due)
	workers.Wait()
	for _, t := range l.transports {
		t.CloseIdleConnections()
	}
	l.mu.Lock()
	l.ended = time.Now()
	l.mu.Unlock()
}

func (l *load) schedule(ctx context.Context, due chan<- time.Time) {
	next := time.Now()
	for n := 0; l.spec.Requests == 0 || n < l.spec.Requests; n++ {
		if l.spec.Rate > 0 {
			next = l.begun.Add(time.Duration(float64(n) / l.spec.Rate * float64(time.Second)))
			select {
			case <-ctx.Done():
				return
			case <-time.After(time.Until(next)):
			}
		} else {
			next = time.Time{}
		}
		select {
		case <-ctx.Done():
			return
		case due <- next:
		}
	}
}

func (l *load) request(due time.Time) {
	begun := time.Now()
	var transport *http.Transport
	if n := uint64(len(l.transports)); n > 0 {
		transport = l.transports[l.turn.Add(1)%n]
	}
	a, err := fetch(context.Background(), transport, l.spec.URL, l.spec.Marker, l.spec.Timeout)
	took := time.Since(begun)
	l.mu.Lock()
	defer l.mu.Unlock()
	r := &l.result
	r.Sent++
	if !due.IsZero() && begun.Sub(due) > 100*time.Millisecond {
		r.Late++
	}
	if err != nil {
		r.Failed++
		r.SinceFailure = 0
		r.Reasons[reason(err)]++
		if len(r.Failures) < maxTold {
			r.Failures = append(r.Failures, failure{begun.UTC(), float64(took.Microseconds()) / 1000, reason(err), err.Error()})
		}
		return
	}
	r.OK++
	r.SinceFailure++
	l.times = append(l.times, took)
	r.Pods[a.Pod]++
	if a.Version != "" {
		r.Versions[a.Version]++
	}
	if host, _, err := net.SplitHostPort(a.Client); err == nil {
		r.Clients[host]++
	}
}

// snapshot is the result so far.
func (l *load) snapshot() any {
	l.mu.Lock()
	defer l.mu.Unlock()
	times := slices.Clone(l.times)
	slices.Sort(times)
	r := l.result
	if n := len(times); n > 0 {
		ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
		r.P50ms, r.P99ms, r.MaxMs = ms(times[n/2]), ms(times[n*99/100]), ms(times[n-1])
	}
	end := l.ended
	if end.IsZero() {
		end = time.Now()
	}
	r.Seconds = end.Sub(l.begun).Seconds()
	// Encoded under the lock: the maps go on changing.
	b, err := json.Marshal(r)
	if err != nil {
		return err.Error()
	}
	return json.RawMessage(b)
}

func (l *load) failed() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.result.Failed
}

// fetch makes one request, on a connection of its own without a transport, and reads
// the whole answer.
func fetch(ctx context.Context, transport *http.Transport, url, marker string, timeout time.Duration) (answer, error) {
	var a answer
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	// The body holds the marker too: headers could be compressed one day.
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader([]byte("marker="+marker+"\n")))
	if err != nil {
		return a, usageError{err}
	}
	req.Header.Set(markerHeader, marker)
	if transport == nil {
		transport = &http.Transport{DisableKeepAlives: true, DialContext: (&net.Dialer{}).DialContext}
		defer transport.CloseIdleConnections()
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return a, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return a, err
	}
	if resp.StatusCode != http.StatusOK {
		return a, statusError(resp.StatusCode)
	}
	// Only / answers in JSON; what other paths send is of no interest.
	_ = json.Unmarshal(body, &a)
	return a, nil
}

func runLoad(ctx context.Context, args []string) error {
	var spec loadSpec
	f := flags("load")
	spec.add(f)
	if _, err := parse(f, args, 0); err != nil {
		return err
	}
	l, err := newLoad(spec)
	if err != nil {
		return err
	}
	l.run(ctx)
	if err := printJSON(l.snapshot()); err != nil {
		return err
	}
	if l.failed() > 0 {
		return errFailed
	}
	return nil
}

// get is one request; it prints the answer's body, or why there is none.
func get(ctx context.Context, args []string) error {
	f := flags("get")
	timeout := f.Duration("timeout", 5*time.Second, "from the resolution of the name to the last byte")
	marker := f.String("marker", os.Getenv("MARKER"), "sent in a header ($MARKER)")
	operands, err := parse(f, args, 1)
	if err != nil {
		return err
	}
	a, err := fetch(ctx, nil, operands[0], *marker, *timeout)
	if err != nil {
		fmt.Println(reason(err))
		fmt.Fprintln(os.Stderr, err)
		return errFailed
	}
	return printJSON(a)
}
