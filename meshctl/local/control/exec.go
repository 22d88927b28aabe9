package control

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// Exec is the first message on exec.sock; the caller's standard input, output
// and error come with it.
type Exec struct {
	// Namespace and Pod, or Node, or ControlPlane name where to run. An empty
	// Namespace finds the pod in any, when only one has that name.
	Namespace string `json:"namespace,omitempty"`
	Pod       string `json:"pod,omitempty"`
	Container string `json:"container,omitempty"`
	Node      string `json:"node,omitempty"`
	// ControlPlane runs it where istiod-lite runs.
	ControlPlane bool     `json:"controlPlane,omitempty"`
	Argv         []string `json:"argv"`
	Env          []string `json:"env,omitempty"`
	Dir          string   `json:"dir,omitempty"`
	// Self runs meshctl itself with Argv as its arguments.
	Self bool `json:"self,omitempty"`
}

// ExecMessage is every later message, of either side.
type ExecMessage struct {
	// Signal asks to pass a signal on to the command (client to supervisor).
	Signal int `json:"signal,omitempty"`
	// Error says that the command could not be started.
	Error string `json:"error,omitempty"`
	// Exited is set in the last message, with the command's status.
	Exited bool `json:"exited,omitempty"`
	Code   int  `json:"code,omitempty"`
}

// ErrMessageSize is returned for a message that does not fit.
var ErrMessageSize = errors.New("message too large for exec.sock")

// Send writes one message, with files when there are any.
func Send(c *net.UnixConn, message any, files ...*os.File) error {
	data, err := json.Marshal(message)
	if err != nil {
		return err
	}
	if len(data) > maxExecMessage {
		return fmt.Errorf("%d bytes of command and environment: %w", len(data), ErrMessageSize)
	}
	var rights []byte
	if len(files) > 0 {
		fds := make([]int, len(files))
		for i, f := range files {
			fds[i] = int(f.Fd())
		}
		rights = unix.UnixRights(fds...)
	}
	_, _, err = c.WriteMsgUnix(data, rights, nil)
	return err
}

// Receive reads one message and the files that came with it, which are then the
// caller's.
func Receive(c *net.UnixConn, message any, maxFiles int) ([]*os.File, error) {
	data := make([]byte, maxExecMessage)
	rights := make([]byte, unix.CmsgSpace(4*max(maxFiles, 1)))
	n, rn, flags, _, err := c.ReadMsgUnix(data, rights)
	if err != nil {
		return nil, err
	}
	files, err := parseRights(rights[:rn])
	if err == nil && flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
		err = ErrMessageSize
	}
	if err == nil && len(files) > maxFiles {
		err = fmt.Errorf("%d files where %d were expected", len(files), maxFiles)
	}
	if err == nil && n == 0 {
		err = net.ErrClosed // SOCK_SEQPACKET has no other sign of the end
	}
	if err == nil {
		err = json.Unmarshal(data[:n], message)
	}
	if err != nil {
		for _, f := range files {
			f.Close()
		}
		return nil, err
	}
	return files, nil
}

func parseRights(rights []byte) ([]*os.File, error) {
	if len(rights) == 0 {
		return nil, nil
	}
	messages, err := unix.ParseSocketControlMessage(rights)
	if err != nil {
		return nil, fmt.Errorf("parse passed files: %w", err)
	}
	var files []*os.File
	for _, m := range messages {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			continue // other ancillary data
		}
		for _, fd := range fds {
			unix.CloseOnExec(fd)
			files = append(files, os.NewFile(uintptr(fd), "passed"))
		}
	}
	return files, nil
}
