package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// jobsSocket is where the pod's server takes commands of later executions in the
// same pod. In the abstract namespace it needs no writable file system, and it is
// seen by the pod's network alone; hosts' networks are shared, so there the pod's
// name tells servers apart.
func jobsSocket() string { return "@tulle-e2e-app-" + os.Getenv("POD_NAME") }

func listenJobs() (net.Listener, error) { return net.Listen("unix", jobsSocket()) }

// job is what runs in the background.
type job interface {
	run(ctx context.Context)
	snapshot() any
}

type runningJob struct {
	job
	cancel context.CancelFunc
	done   chan struct{}
}

// jobs is the server behind the socket. Jobs end with the process.
type jobs struct {
	mu   sync.Mutex
	next int
	all  map[int]*runningJob
	*http.ServeMux
}

func newJobs() *jobs {
	j := &jobs{all: map[int]*runningJob{}, ServeMux: http.NewServeMux()}
	j.HandleFunc("POST /start", j.start)
	j.HandleFunc("GET /peek/{id}", func(w http.ResponseWriter, r *http.Request) {
		if running := j.find(w, r); running != nil {
			_ = json.NewEncoder(w).Encode(running.snapshot())
		}
	})
	j.HandleFunc("POST /stop/{id}", func(w http.ResponseWriter, r *http.Request) {
		if running := j.find(w, r); running != nil {
			running.cancel()
			<-running.done
			_ = json.NewEncoder(w).Encode(running.snapshot())
		}
	})
	return j
}

func (j *jobs) start(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	made, err := parseJob(r.Form["arg"])
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	running := &runningJob{job: made, cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(running.done)
		running.run(ctx)
	}()
	j.mu.Lock()
	j.next++
	id := j.next
	j.all[id] = running
	j.mu.Unlock()
	fmt.Fprintln(w, id)
}

// parseJob reads a job as its command line has it: load or hold, and flags.
func parseJob(args []string) (job, error) {
	if len(args) == 0 {
		return nil, errors.New("start load|hold [FLAG]…")
	}
	f := flags(args[0])
	f.SetOutput(io.Discard)
	switch args[0] {
	case "load":
		var spec loadSpec
		spec.add(f)
		if _, err := parse(f, args[1:], 0); err != nil {
			return nil, err
		}
		return newLoad(spec)
	case "hold":
		var spec holdSpec
		spec.add(f)
		if _, err := parse(f, args[1:], 0); err != nil {
			return nil, err
		}
		return newHold(spec)
	}
	return nil, fmt.Errorf("no job %q: load or hold", args[0])
}

func (j *jobs) find(w http.ResponseWriter, r *http.Request) *runningJob {
	id, _ := strconv.Atoi(r.PathValue("id"))
	j.mu.Lock()
	defer j.mu.Unlock()
	running, ok := j.all[id]
	if !ok {
		http.Error(w, "no such job", http.StatusNotFound)
	}
	return running
}

func startJob(ctx context.Context, args []string) error {
	return ask(ctx, http.MethodPost, "start?"+url.Values{"arg": args}.Encode())
}

func peekJob(ctx context.Context, args []string) error {
	operands, err := parse(flags("peek"), args, 1)
	if err != nil {
		return err
	}
	return ask(ctx, http.MethodGet, "peek/"+operands[0])
}

func stopJob(ctx context.Context, args []string) error {
	operands, err := parse(flags("stop"), args, 1)
	if err != nil {
		return err
	}
	return ask(ctx, http.MethodPost, "stop/"+operands[0])
}

// ask puts a question to the pod's server and prints its answer.
func ask(ctx context.Context, method, path string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "http://jobs/"+path, nil)
	if err != nil {
		return err
	}
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", jobsSocket())
	}}}
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("no server in this pod: %w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return errors.New(strings.TrimSpace(string(body)))
	}
	_, err = os.Stdout.Write(body)
	return err
}
