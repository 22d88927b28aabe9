package local

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/tulle-mesh/tulle/meshctl/local/control"
	"github.com/tulle-mesh/tulle/meshctl/local/manifest"
)

// ErrNotRunning is returned by Open when no supervisor answers.
var ErrNotRunning = errors.New("no local mesh runs")

// Mesh is a running local mesh. It is safe for concurrent use.
type Mesh struct {
	dir  control.StateDir
	http *http.Client
}

// Open finds the mesh that runs with that state folder.
func Open(ctx context.Context, stateDir string) (*Mesh, error) {
	dir := control.StateDir(stateDir)
	dial := func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", dir.Control())
	}
	conn, err := dial(ctx)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
			return nil, fmt.Errorf("%w with --state-dir %s; start one with `meshctl local up -f FILE`", ErrNotRunning, stateDir)
		}
		if errors.Is(err, os.ErrPermission) {
			return nil, fmt.Errorf("the mesh in %s belongs to somebody else: %w", stateDir, err)
		}
		return nil, err
	}
	conn.Close()
	return &Mesh{dir: dir, http: &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
	}}}, nil
}

// Apply makes the mesh as the documents say. progress gets a line for each step.
// It returns how many objects changed.
func (m *Mesh) Apply(ctx context.Context, docs []manifest.Document, nodes int, waitSeconds float64, progress func(string)) (int, error) {
	request := control.Apply{Nodes: nodes, WaitSeconds: waitSeconds}
	for _, d := range docs {
		request.Documents = append(request.Documents, control.Document(d))
	}
	body, err := json.Marshal(request)
	if err != nil {
		return 0, err
	}
	changed, err := m.events(ctx, "/v1/apply", body, progress)
	if err != nil && ctx.Err() != nil {
		return changed, errors.New("interrupted; the mesh stays up and goes on with what was begun: `meshctl local status` shows it, `meshctl local down` ends it")
	}
	return changed, err
}

func (m *Mesh) down(ctx context.Context, progress func(string)) error {
	_, err := m.events(ctx, "/v1/down", nil, progress)
	return err
}

// events posts a request and reads the events that answer it.
func (m *Mesh) events(ctx context.Context, path string, body []byte, progress func(string)) (int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://mesh"+path, bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	res, err := m.http.Do(req)
	if err != nil {
		return 0, fmt.Errorf("ask the supervisor: %w", err)
	}
	defer res.Body.Close()
	lines := bufio.NewReader(res.Body)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return 0, fmt.Errorf("the supervisor broke off: %w (its log: %s)", err, m.dir.Log("supervisor"))
		}
		var e control.Event
		if err := json.Unmarshal(line, &e); err != nil {
			return 0, fmt.Errorf("the supervisor's answer: %w", err)
		}
		switch {
		case e.Error != "":
			return e.Changed, errors.New(e.Error)
		case e.Done:
			return e.Changed, nil
		default:
			progress(e.Text)
		}
	}
}

// Status asks for the state of everything, with process numbers as this
// process sees them.
func (m *Mesh) Status(ctx context.Context) (control.Status, error) {
	var st control.Status
	data, err := m.get(ctx, "/v1/status")
	if err != nil {
		return st, err
	}
	if err := json.Unmarshal(data, &st); err != nil {
		return st, fmt.Errorf("the supervisor's answer: %w", err)
	}
	m.hostPIDs(&st)
	return st, nil
}

// StateDir is the mesh's state folder.
func (m *Mesh) StateDir() string { return string(m.dir) }

// RefusalError is an answer of a component that is not what was asked for.
type RefusalError struct {
	// Status is HTTP's, Text what the component says.
	Status, Text string
}

func (e *RefusalError) Error() string { return e.Status + ": " + e.Text }

// Admin asks for a page of the admin interface ("/config_dump?x=y") of the ztunnel
// of a node, or of istiod-lite on the node "control-plane". Another answer than 200
// is a RefusalError; that there is none, or nobody to ask, is another error.
func (m *Mesh) Admin(ctx context.Context, method, node, component, page string) ([]byte, error) {
	return m.ask(ctx, method, "/v1/nodes/"+node+"/"+component+page)
}

// WaypointAdmin is Admin for a waypoint's pod.
func (m *Mesh) WaypointAdmin(ctx context.Context, method, namespace, pod, page string) ([]byte, error) {
	return m.ask(ctx, method, "/v1/waypoints/"+namespace+"/"+pod+page)
}

func (m *Mesh) get(ctx context.Context, path string) ([]byte, error) {
	return m.ask(ctx, http.MethodGet, path)
}

func (m *Mesh) ask(ctx context.Context, method, path string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://mesh"+path, nil)
	if err != nil {
		return nil, err
	}
	res, err := m.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask the supervisor: %w", err)
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	if err != nil {
		return nil, fmt.Errorf("ask the supervisor: %w", err)
	}
	switch text := strings.TrimSpace(string(data)); res.StatusCode {
	case http.StatusOK:
		return data, nil
	case http.StatusBadGateway: // the supervisor's own word
		return nil, errors.New(text)
	default:
		return nil, &RefusalError{res.Status, text}
	}
}

// Exec runs a command inside the mesh with the given standard input, output and
// error, and returns its exit status. Signals that ask a program to end are
// passed on to the command while it runs; ctx ends it.
func (m *Mesh) Exec(ctx context.Context, request control.Exec, stdin, stdout, stderr *os.File) (int, error) {
	addr := &net.UnixAddr{Name: m.dir.Exec(), Net: "unixpacket"}
	conn, err := net.DialUnix("unixpacket", nil, addr)
	if err != nil {
		return 0, fmt.Errorf("ask the supervisor: %w", err)
	}
	defer conn.Close()
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2, unix.SIGWINCH)
	defer signal.Stop(signals)
	if err := control.Send(conn, request, stdin, stdout, stderr); err != nil {
		return 0, fmt.Errorf("ask the supervisor: %w", err)
	}
	type answer struct {
		control.ExecMessage
		err error
	}
	answers := make(chan answer, 1)
	go func() {
		var a answer
		_, a.err = control.Receive(conn, &a.ExecMessage, 0)
		answers <- a
	}()
	for {
		select {
		case <-ctx.Done():
			conn.Close()
			<-answers
			return 0, ctx.Err()
		case sig := <-signals:
			control.Send(conn, control.ExecMessage{Signal: int(sig.(syscall.Signal))})
		case a := <-answers:
			switch {
			case a.err != nil:
				return 0, fmt.Errorf("the supervisor is gone: %w", a.err)
			case a.Error != "":
				return 0, errors.New(a.Error)
			}
			return a.Code, nil
		}
	}
}
