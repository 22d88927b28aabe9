package zds

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	apizds "github.com/tulle-mesh/tulle/api/zds"
	"github.com/tulle-mesh/tulle/internal/netns"
)

// Info names a pod to the proxy.
type Info struct {
	Name           string
	Namespace      string
	ServiceAccount string
}

// Request is what the agent tells the proxy: *Add, *Keep, *Del or
// *SnapshotSent.
type Request interface{ request() }

// Add enrols a pod.
type Add struct {
	// UID is the pod's metadata.uid.
	UID  string
	Info Info
	// NS is the pod's network namespace. What Receive returns belongs to the
	// caller; what Send is given stays the caller's.
	NS *netns.NS
}

// Keep says in the first list that a pod is still enrolled whose namespace the
// agent does not hold any more.
type Keep struct{ UID string }

// Del ends a pod's enrolment.
type Del struct{ UID string }

// SnapshotSent ends the first list.
type SnapshotSent struct{}

func (*Add) request()          {}
func (*Keep) request()         {}
func (*Del) request()          {}
func (*SnapshotSent) request() {}

// ProtocolError says that the peer broke the protocol. The connection must be
// closed: what it meant cannot be known.
type ProtocolError struct{ Reason string }

func (e *ProtocolError) Error() string { return "ZDS protocol error: " + e.Reason }

// RequestError says that one request is well formed and cannot be served: a bad
// name, a descriptor that is no network namespace. The connection goes on, the
// answer is an ack with the error.
type RequestError struct {
	UID    string
	Reason error
}

func (e *RequestError) Error() string { return fmt.Sprintf("workload %q: %v", e.UID, e.Reason) }

func (e *RequestError) Unwrap() error { return e.Reason }

// RefusedError is the peer's ack with an error in it.
type RefusedError struct{ Reason string }

func (e *RefusedError) Error() string { return "the proxy refused: " + e.Reason }

func encodeRequest(r Request) ([]byte, error) {
	m := &apizds.WorkloadRequest{}
	switch r := r.(type) {
	case *Add:
		if err := r.valid(); err != nil {
			return nil, &RequestError{UID: r.UID, Reason: err}
		}
		m.Payload = &apizds.WorkloadRequest_Add{Add: &apizds.AddWorkload{
			Uid: r.UID,
			WorkloadInfo: &apizds.WorkloadInfo{
				Name: r.Info.Name, Namespace: r.Info.Namespace, ServiceAccount: r.Info.ServiceAccount,
			},
		}}
	case *Keep:
		m.Payload = &apizds.WorkloadRequest_Keep{Keep: &apizds.KeepWorkload{Uid: r.UID}}
	case *Del:
		m.Payload = &apizds.WorkloadRequest_Del{Del: &apizds.DelWorkload{Uid: r.UID}}
	case *SnapshotSent:
		m.Payload = &apizds.WorkloadRequest_SnapshotSent{SnapshotSent: &apizds.SnapshotSent{}}
	}
	return proto.Marshal(m)
}

// decodeRequest owns fds: each is either in the result or closed.
func decodeRequest(b []byte, fds []int) (Request, error) {
	var m apizds.WorkloadRequest
	if err := proto.Unmarshal(b, &m); err != nil {
		closeAll(fds)
		return nil, &ProtocolError{Reason: "request does not decode: " + err.Error()}
	}
	add, isAdd := m.Payload.(*apizds.WorkloadRequest_Add)
	switch {
	case isAdd && len(fds) != 1:
		closeAll(fds)
		return nil, &ProtocolError{Reason: fmt.Sprintf("add with %d descriptors instead of one", len(fds))}
	case !isAdd && len(fds) != 0:
		closeAll(fds)
		return nil, &ProtocolError{Reason: fmt.Sprintf("%d descriptors beside a message that carries none", len(fds))}
	}
	switch p := m.Payload.(type) {
	case *apizds.WorkloadRequest_Add:
		info := add.Add.GetWorkloadInfo()
		a := &Add{UID: p.Add.GetUid(), Info: Info{
			Name: info.GetName(), Namespace: info.GetNamespace(), ServiceAccount: info.GetServiceAccount(),
		}}
		if err := a.valid(); err != nil {
			closeAll(fds)
			return nil, &RequestError{UID: a.UID, Reason: err}
		}
		ns, err := netns.FromFD(fds[0])
		if err != nil {
			return nil, &RequestError{UID: a.UID, Reason: err}
		}
		a.NS = ns
		return a, nil
	case *apizds.WorkloadRequest_Keep:
		return &Keep{UID: p.Keep.GetUid()}, validUID(p.Keep.GetUid())
	case *apizds.WorkloadRequest_Del:
		return &Del{UID: p.Del.GetUid()}, validUID(p.Del.GetUid())
	case *apizds.WorkloadRequest_SnapshotSent:
		return &SnapshotSent{}, nil
	}
	return nil, &ProtocolError{Reason: "request without a known payload"}
}

func validUID(uid string) error {
	if err := checkText("uid", uid, maxUID, true); err != nil {
		return &RequestError{UID: uid, Reason: err}
	}
	return nil
}

func (a *Add) valid() error {
	return errors.Join(
		checkText("uid", a.UID, maxUID, true),
		checkText("name", a.Info.Name, maxName, true),
		checkText("namespace", a.Info.Namespace, maxName, true),
		checkText("service account", a.Info.ServiceAccount, maxName, false),
	)
}

// checkText refuses what would make two names one, or break a log line.
func checkText(what, s string, limit int, required bool) error {
	switch {
	case s == "" && required:
		return fmt.Errorf("%s is empty", what)
	case len(s) > limit:
		return fmt.Errorf("%s has %d bytes, more than %d", what, len(s), limit)
	case strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f || r == utf8.RuneError }):
		return fmt.Errorf("%s %q has characters that no name has", what, s)
	}
	return nil
}

func encodeAck(reason string) ([]byte, error) {
	if len(reason) > maxAckError {
		reason = strings.ToValidUTF8(reason[:maxAckError], "")
	}
	reason = strings.ToValidUTF8(reason, "\uFFFD")
	if len(reason) > maxAckError {
		reason = strings.ToValidUTF8(reason[:maxAckError], "")
	}
	return proto.Marshal(&apizds.WorkloadResponse{
		Payload: &apizds.WorkloadResponse_Ack{Ack: &apizds.Ack{Error: reason}},
	})
}

func decodeAck(b []byte) error {
	var m apizds.WorkloadResponse
	if err := proto.Unmarshal(b, &m); err != nil {
		return &ProtocolError{Reason: "response does not decode: " + err.Error()}
	}
	ack, ok := m.Payload.(*apizds.WorkloadResponse_Ack)
	if !ok {
		return &ProtocolError{Reason: "response without an ack"}
	}
	if reason := ack.Ack.GetError(); reason != "" {
		return &RefusedError{Reason: reason}
	}
	return nil
}

func decodeHello(b []byte) error {
	var m apizds.ZdsHello
	if err := proto.Unmarshal(b, &m); err != nil {
		return &ProtocolError{Reason: "hello does not decode: " + err.Error()}
	}
	if m.GetVersion() != apizds.Version_V1 {
		return &ProtocolError{Reason: fmt.Sprintf("hello of version %v, want V1", m.GetVersion())}
	}
	return nil
}
