package enrol

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"time"

	"github.com/tulle-mesh/tulle/internal/netns"
	"github.com/tulle-mesh/tulle/ztunnel/zds"
)

// Pod is what the caller says of a pod.
type Pod struct {
	// UID is the pod's metadata.uid.
	UID            string `json:"uid"`
	Name           string `json:"name"`
	Namespace      string `json:"namespace"`
	ServiceAccount string `json:"serviceAccount"`
	// NetnsPath leads to the pod's network namespace as long as the pod lives:
	// /var/run/netns/… or /proc/PID/ns/net.
	NetnsPath string `json:"netnsPath"`
	// Strict says that the pod's policy takes no plaintext, so that connections
	// older than the enrolment are ended.
	Strict bool `json:"strict"`
	// Running says that the pod's programs run already, outside of the mesh. Such a
	// pod is captured only once the proxy has acknowledged it, so that none of its
	// connections is refused; until then they go as before, in plaintext. A pod that
	// is not running yet is captured first: it has nothing to lose and must never
	// talk past the mesh. It matters only for the first capture.
	Running bool `json:"running,omitempty"`
}

func (p Pod) info() zds.Info {
	return zds.Info{Name: p.Name, Namespace: p.Namespace, ServiceAccount: p.ServiceAccount}
}

// InvalidError says what is wrong with a Pod.
type InvalidError struct{ Reason string }

func (e *InvalidError) Error() string { return e.Reason }

var (
	// uidForm also keeps a uid from being anything but one file's name.
	uidForm  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)
	nameForm = regexp.MustCompile(`^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$`)
)

func (p Pod) validate() error {
	bad := func(format string, args ...any) error { return &InvalidError{Reason: fmt.Sprintf(format, args...)} }
	switch {
	case !uidForm.MatchString(p.UID):
		return bad("uid %q: want up to 128 letters, digits, dots, dashes and underscores", p.UID)
	case !nameForm.MatchString(p.Name):
		return bad("name %q is no name of a pod", p.Name)
	case !nameForm.MatchString(p.Namespace):
		return bad("namespace %q is no name of a namespace", p.Namespace)
	case p.ServiceAccount != "" && !nameForm.MatchString(p.ServiceAccount):
		return bad("serviceAccount %q is no name of a service account", p.ServiceAccount)
	case !strings.HasPrefix(p.NetnsPath, "/") || len(p.NetnsPath) >= maxPath:
		return bad("netnsPath %q is no absolute path", p.NetnsPath)
	}
	return nil
}

// State is how far a pod's enrolment is.
type State string

const (
	// Pending: no proxy has acknowledged it. Its connections are refused; those of a
	// pod that was running before go past the mesh until it is captured.
	Pending State = "pending"
	// Enrolled: the proxy serves it.
	Enrolled State = "enrolled"
	// Failed: the rules could not be written, or the proxy refused the pod. The
	// agent goes on trying.
	Failed State = "failed"
	// leaving is only counted: pods that left are not on the list.
	leaving State = "leaving"
)

// Status is a pod's state for the operator.
type Status struct {
	Pod
	State State `json:"state"`
	// Reason says why the state is not Enrolled.
	Reason string `json:"reason,omitempty"`
	// Captured: the rules are in force, as far as is known.
	Captured bool `json:"captured"`
	// NetNS is the namespace that NetnsPath led to when the pod was enrolled.
	NetNS netns.ID `json:"netns"`
	// Since is when the rules were first in force.
	Since time.Time `json:"since"`
	// OlderConnections go past the proxy because they are older than Since. At
	// most 100 are listed, OlderCount counts all.
	OlderConnections []Connection `json:"olderConnections"`
	OlderCount       int          `json:"olderConnectionCount"`
	// UDP says what happens to UDP, always the same for now.
	UDP string `json:"udp"`
}

// Connection is one that is older than the enrolment.
type Connection struct {
	Local  netip.AddrPort `json:"local"`
	Remote netip.AddrPort `json:"remote"`
	State  string         `json:"state"`
	// EnrolledSeconds is for how long the pod has been enrolled, so the least age
	// of the connection.
	EnrolledSeconds int `json:"enrolledSeconds"`
}

// udpStatus is the honest answer.
const udpStatus = "not captured: UDP of this pod passes outside of the mesh, in plaintext"

// Errors of Enrol that a caller decides on, besides *InvalidError.
var (
	// ErrNoProxy: no proxy is connected.
	ErrNoProxy = errors.New("no ztunnel is connected to the node agent")
	// ErrTooMany: the node has too many pods.
	ErrTooMany = errors.New("too many pods are enrolled on this node")
)
