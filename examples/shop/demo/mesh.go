package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"
)

// mesh drives meshctl, as a person would.
type mesh struct {
	bin, state string
	say        *speaker
}

func (m *mesh) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, m.bin, args...)
	cmd.Env = append(os.Environ(), "TULLE_STATE_DIR="+m.state)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// quiet runs meshctl and returns what it printed.
func (m *mesh) quiet(ctx context.Context, args ...string) (string, error) {
	cmd := m.command(ctx, args...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("meshctl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(errOut.String()))
	}
	return out.String(), nil
}

// run shows the command and what it prints.
func (m *mesh) run(ctx context.Context, args ...string) (string, error) {
	m.say.command("meshctl " + quote(args))
	out, err := m.quiet(ctx, args...)
	m.say.output(out)
	return out, err
}

func quote(args []string) string {
	words := make([]string, len(args))
	for i, a := range args {
		if strings.ContainsAny(a, " '\"$&|;<>") {
			a = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
		}
		words[i] = a
	}
	return strings.Join(words, " ")
}

// status is the part of `meshctl local status -o json` that the demo looks at.
type status struct {
	SupervisorPID int
	ControlPlane  component
	Nodes         []struct {
		Name       string
		Components []component
	}
	Pods []pod
}

type component struct {
	Name          string
	CPUSeconds    float64
	ResidentBytes int64
}

type pod struct {
	Namespace, Name, Node, Mesh, Identity string
	Restarts, OlderConnections            int
	Containers                            []struct {
		HostPID int
		Started time.Time
	}
}

func (m *mesh) status(ctx context.Context) (status, error) {
	var st status
	out, err := m.quiet(ctx, "local", "status", "-o", "json")
	if err == nil {
		err = json.Unmarshal([]byte(out), &st)
	}
	return st, err
}

// report is what `meshctl local capture -o json` prints.
type report struct {
	Packets, Found, Dropped int
	Flows                   []flow
	Example                 []byte
}

type flow struct {
	Protocol     string
	Port         int
	Packets      int
	PayloadBytes int64
}

// capture looks at the wire between the nodes while f runs.
func (m *mesh) capture(ctx context.Context, find string, f func() error) (report, error) {
	args := []string{"local", "capture", "--node", "node-1", "--find", find}
	m.say.command("meshctl " + quote(args) + "   (meanwhile)")
	var r report
	cmd := m.command(ctx, append(args, "-o", "json")...)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return r, err
	}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return r, err
	}
	var out bytes.Buffer
	cmd.Stdout = &out
	if err := cmd.Start(); err != nil {
		return r, err
	}
	words := bufio.NewReader(stderr)
	first, err := words.ReadString('\n')
	if err != nil || !strings.HasPrefix(first, "looking") {
		stdin.Close()
		return r, errors.Join(fmt.Errorf("capture: %s", strings.TrimSpace(first)), cmd.Wait())
	}
	err = f()
	stdin.Close()
	rest, _ := io.ReadAll(words)
	if waitErr := cmd.Wait(); waitErr != nil {
		return r, errors.Join(err, fmt.Errorf("capture: %w: %s", waitErr, rest))
	}
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(out.Bytes(), &r); err != nil {
		return r, fmt.Errorf("capture: %w", err)
	}
	if r.Dropped > 0 {
		return r, fmt.Errorf("capture: %d packets were missed, so it proves nothing", r.Dropped)
	}
	return r, nil
}
