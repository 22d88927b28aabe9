package upstream

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/tulle-mesh/tulle/waypoint/message"
)

// The messages of grpc.health.v1 are two: one with a string, one with an enum. They
// are written and read by hand, so that the proxy's path to an endpoint is what is
// checked, and no second HTTP/2 stack.

// healthRequest is a HealthCheckRequest with gRPC's prefix of five bytes.
func healthRequest(service string) []byte {
	var m []byte
	if service != "" {
		m = protowire.AppendTag(m, 1, protowire.BytesType)
		m = protowire.AppendString(m, service)
	}
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(m))), m...)
}

// servingNames are the values of HealthCheckResponse.ServingStatus.
var servingNames = map[uint64]string{0: "UNKNOWN", 1: "SERVING", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}

// readHealth returns nil when content is one HealthCheckResponse that says SERVING.
func readHealth(content []byte) error {
	if len(content) < 5 {
		return errors.New("gRPC message: incomplete prefix")
	}
	if content[0] != 0 {
		return errors.New("gRPC message: compressed")
	}
	m := content[5:]
	if n := binary.BigEndian.Uint32(content[1:]); uint64(n) != uint64(len(m)) {
		return fmt.Errorf("gRPC message: %d bytes where its prefix says %d", len(m), n)
	}
	var status uint64
	for len(m) > 0 {
		number, kind, n := protowire.ConsumeTag(m)
		if n < 0 {
			return protowire.ParseError(n)
		}
		m = m[n:]
		if number == 1 && kind == protowire.VarintType {
			v, n := protowire.ConsumeVarint(m)
			if n < 0 {
				return protowire.ParseError(n)
			}
			status, m = v, m[n:]
			continue
		}
		if n = protowire.ConsumeFieldValue(number, kind, m); n < 0 {
			return protowire.ParseError(n)
		}
		m = m[n:]
	}
	if name, ok := servingNames[status]; !ok || status != 1 {
		return fmt.Errorf("health status %d %s", status, name)
	}
	return nil
}

// readAll reads content of at most maxHealthBody bytes and its trailers.
func readAll(b message.Body) ([]byte, message.Header, error) {
	content := make([]byte, 0, 512)
	for {
		if len(content) == cap(content) {
			content = append(content, 0)[:len(content)]
		}
		n, err := b.Read(content[len(content):cap(content)])
		content = content[:len(content)+n]
		switch {
		case errors.Is(err, io.EOF):
			return content, b.Trailer(), nil
		case err != nil:
			return nil, nil, err
		case len(content) > maxHealthBody:
			return nil, nil, fmt.Errorf("more than %d bytes in the answer", maxHealthBody)
		}
	}
}
