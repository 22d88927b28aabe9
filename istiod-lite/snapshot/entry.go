package snapshot

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"sync/atomic"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	apiworkload "github.com/tulle-mesh/tulle/api/workload"
	"github.com/tulle-mesh/tulle/istiod-lite/translate"
)

// Entry is one resource at one version. It is immutable.
type Entry struct {
	Name string
	// Version is the hash of the content, in hexadecimal.
	Version string
	// Aliases and Services are those of translate.Resource.
	Aliases  []string
	Services []string
	// Wire is the resource as it stands in every response that has it: the field
	// "resources" of a DeltaDiscoveryResponse with its tag and its length. Nobody
	// may change it.
	Wire []byte

	body int // where the packed resource begins in Wire,
	size int // and its length
	// from is what was packed. It serves to know the same translation again, and
	// moves on when another one turns out to have the same content.
	from     atomic.Pointer[translate.Resource]
	workload bool
}

// Body is the packed resource. Nobody may change it.
func (e *Entry) Body() []byte { return e.Wire[e.body : e.body+e.size] }

// Size is how many bytes the entry takes in a response.
func (e *Entry) Size() int { return len(e.Wire) }

// IsWorkload reports whether the entry is a workload, as opposed to a service or
// a policy.
func (e *Entry) IsWorkload() bool { return e.workload }

// Numbers of fields, of envoy.service.discovery.v3.DeltaDiscoveryResponse,
// envoy.service.discovery.v3.Resource and google.protobuf.Any.
const (
	responseResources = 2

	resourceVersion = 1
	resourceBody    = 2
	resourceName    = 3
	resourceAliases = 4

	anyTypeURL = 1
	anyValue   = 2
)

// versionBytes is the length of a version: half a SHA-256, which is enough
// against chance, and content is not chosen by an adversary of its own mesh.
const versionBytes = 16

// pack encodes r once for all responses to come.
func pack(url string, r *translate.Resource) (*Entry, error) {
	options := proto.MarshalOptions{Deterministic: true}
	size := options.Size(r.Body)
	field := func(num protowire.Number, n int) int { return protowire.SizeTag(num) + protowire.SizeBytes(n) }
	inner := field(anyTypeURL, len(url)) + field(anyValue, size)
	outer := field(resourceVersion, 2*versionBytes) + field(resourceBody, inner) + field(resourceName, len(r.Name))
	for _, a := range r.Aliases {
		outer += field(resourceAliases, len(a))
	}

	b := make([]byte, 0, field(responseResources, outer))
	length := func(num protowire.Number, n int) {
		b = protowire.AppendTag(b, num, protowire.BytesType)
		b = protowire.AppendVarint(b, uint64(n))
	}
	length(responseResources, outer)
	length(resourceVersion, 2*versionBytes)
	version := len(b)
	b = b[:version+2*versionBytes] // the hash is of what follows
	length(resourceBody, inner)
	length(anyTypeURL, len(url))
	b = append(b, url...)
	length(anyValue, size)
	body := len(b)
	options.UseCachedSize = true // found above, and nobody changes the message
	b, err := options.MarshalAppend(b, r.Body)
	if err != nil {
		return nil, err
	}
	h := sha256.New()
	h.Write(b[body:])
	length(resourceName, len(r.Name))
	b = append(b, r.Name...)
	for _, a := range r.Aliases {
		io.WriteString(h, "\x00"+a)
		length(resourceAliases, len(a))
		b = append(b, a...)
	}
	hex.Encode(b[version:], h.Sum(nil)[:versionBytes])
	e := &Entry{
		Name:     r.Name,
		Version:  string(b[version : version+2*versionBytes]),
		Aliases:  r.Aliases,
		Services: r.Services,
		Wire:     b,
		body:     body,
		size:     size,
	}
	if a, ok := r.Body.(*apiworkload.Address); ok {
		e.workload = a.GetWorkload() != nil
	}
	e.from.Store(r)
	return e, nil
}
