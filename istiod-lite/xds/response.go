package xds

import (
	"slices"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/tulle-mesh/tulle/istiod-lite/snapshot"
)

// response is a DeltaDiscoveryResponse: a few fields of one client's and a body
// that many may share.
type response struct {
	url, version, nonce string
	*body
}

// body is what a response tells. It is immutable and safe for concurrent use.
type body struct {
	resources int
	removed   int
	// parts are encoded fields of a response, which need not be copied.
	parts mem.BufferSlice
	bytes int
}

// Numbers of the fields of envoy.service.discovery.v3.DeltaDiscoveryResponse
// besides the resources, which snapshot encodes.
const (
	fieldSystemVersion = 1
	fieldTypeURL       = 4
	fieldNonce         = 5
	fieldRemoved       = 6
)

// newBody makes a body of entries and names that are gone. It sorts the names,
// for the same change to look the same to all.
func newBody(entries []*snapshot.Entry, removed []string) *body {
	b := &body{resources: len(entries), removed: len(removed), parts: make(mem.BufferSlice, 0, len(entries)+1)}
	for _, e := range entries {
		b.parts = append(b.parts, (*mem.SliceBuffer)(&e.Wire))
		b.bytes += len(e.Wire)
	}
	if len(removed) == 0 {
		return b
	}
	slices.Sort(removed)
	var gone []byte
	for _, name := range removed {
		gone = appendField(gone, fieldRemoved, name)
	}
	b.parts = append(b.parts, mem.SliceBuffer(gone))
	b.bytes += len(gone)
	return b
}

// encode returns the response as it goes on the wire; fields may come in any
// order. The buffers are nobody's to reuse.
func (r *response) encode() mem.BufferSlice {
	var head []byte
	head = appendField(head, fieldSystemVersion, r.version)
	head = appendField(head, fieldTypeURL, r.url)
	head = appendField(head, fieldNonce, r.nonce)
	return append(mem.BufferSlice{mem.SliceBuffer(head)}, r.parts...)
}

// size is about how long encode's result is.
func (r *response) size() int { return r.bytes + len(r.url) + len(r.version) + len(r.nonce) + 6 }

func appendField(b []byte, num protowire.Number, s string) []byte {
	return protowire.AppendString(protowire.AppendTag(b, num, protowire.BytesType), s)
}
