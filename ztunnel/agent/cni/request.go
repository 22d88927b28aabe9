package cni

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
)

// Request is what the plugin tells the agent.
type Request struct {
	// ContainerID and IfName name the attachment for the runtime.
	ContainerID string `json:"containerID"`
	IfName      string `json:"ifName"`
	// Netns leads to the pod's network namespace, as the node sees it. It may be
	// empty when a pod is deleted.
	Netns string `json:"netns"`
	// Namespace, Name and UID are the pod's. UID is empty from runtimes that do not
	// tell it.
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	UID       string `json:"uid"`
	// Addresses are what the plugins before gave the pod.
	Addresses []netip.Addr `json:"addresses,omitempty"`
}

// Answer is the agent's to a request that succeeded.
type Answer struct {
	// Enrolled tells whether the pod is in the mesh.
	Enrolled bool `json:"enrolled"`
	// Reason says why or why not.
	Reason string `json:"reason"`
}

// Refusal is the agent's to one that did not.
type Refusal struct {
	Reason string `json:"reason"`
}

// Decode reads a Request. A field that it does not know is an error: plugin and
// agent are the same program, so somebody else asks.
func Decode(r io.Reader) (Request, error) {
	d := json.NewDecoder(r)
	d.DisallowUnknownFields()
	var q Request
	if err := d.Decode(&q); err != nil {
		return Request{}, err
	}
	if err := d.Decode(new(json.RawMessage)); !errors.Is(err, io.EOF) {
		return Request{}, errors.New("more after the first value")
	}
	switch {
	case q.Namespace == "" || q.Name == "":
		return Request{}, errors.New("namespace or name of the pod is missing")
	case q.Netns != "" && !strings.HasPrefix(q.Netns, "/"):
		return Request{}, fmt.Errorf("netns %q is no absolute path", q.Netns)
	case len(q.Addresses) > maxAddresses:
		return Request{}, fmt.Errorf("%d addresses, more than %d", len(q.Addresses), maxAddresses)
	}
	return q, nil
}
