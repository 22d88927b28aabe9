package xdsclient

import (
	"errors"

	"google.golang.org/protobuf/types/known/anypb"
)

// The resource types of the ambient mesh.
const (
	AddressType       = "type.googleapis.com/istio.workload.Address"
	AuthorizationType = "type.googleapis.com/istio.security.Authorization"
)

// Handler takes the resources of one type. Apply is called from the goroutine
// of Run, never concurrently for one Client; while it runs nothing is
// acknowledged. What it returns is refused; everything else in the delta counts
// as accepted. It must not keep or change the delta's slices after returning;
// the resource bodies it may keep.
type Handler interface {
	Apply(delta Delta) []Rejection
}

// HandlerFunc is a Handler made of one function.
type HandlerFunc func(delta Delta) []Rejection

// Apply calls f.
func (f HandlerFunc) Apply(delta Delta) []Rejection { return f(delta) }

// Delta is one response of the server, checked: names are unique and not empty,
// bodies have the subscribed type, and nothing is both changed and removed.
type Delta struct {
	// Resources are new or changed.
	Resources []Resource
	// Removed are names that no longer exist. The Handler may not know them.
	Removed []string
	// First is true for the first response of this type in the Client's life.
	// It stays false after a reconnect, since the server then sends differences.
	First bool
}

// Resource is one named resource at one version.
type Resource struct {
	Name    string
	Version string
	// Aliases are other names that the resource answers to.
	Aliases []string
	// Body is the resource itself, still packed; its type URL is the
	// subscribed one.
	Body *anypb.Any
}

// ErrNotWanted in a Rejection passes over a resource without a complaint: its name was
// given back, and it came all the same.
var ErrNotWanted = errors.New("not wanted any more")

// Rejection is one resource that the Handler could not use, and why.
type Rejection struct {
	Name string
	Err  error
}
