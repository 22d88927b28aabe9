package forward

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/tulle-mesh/tulle/waypoint/message"
)

// errNoHello says that a client of a port of TLS does not begin with a ClientHello that
// can be read in one way only.
var errNoHello = errors.New("the client does not begin TLS as it must")

// ServerName reads the server name that a client of TLS asks for, "" without one, and
// returns the connection from its first byte. It is for ports whose routes ask for
// names: it waits for the client to speak, at most helloTimeout.
func ServerName(conn net.Conn) (string, net.Conn, error) {
	if err := conn.SetReadDeadline(time.Now().Add(helloTimeout)); err != nil {
		return "", nil, err
	}
	name, read, err := readHello(conn)
	if err != nil {
		return "", nil, err
	}
	if err := conn.SetReadDeadline(time.Time{}); err != nil {
		return "", nil, err
	}
	return name, &resumed{Conn: conn, first: read}, nil
}

// resumed is a connection of which some was read already.
type resumed struct {
	net.Conn
	first []byte
}

func (c *resumed) Read(p []byte) (int, error) {
	if len(c.first) > 0 {
		n := copy(p, c.first)
		if c.first = c.first[n:]; len(c.first) == 0 {
			c.first = nil
		}
		return n, nil
	}
	return c.Conn.Read(p)
}

// CloseWrite passes half-closes on.
func (c *resumed) CloseWrite() error {
	if s, ok := c.Conn.(message.Stream); ok {
		return s.CloseWrite()
	}
	return nil
}

// SetLinger passes on how the connection is to be closed.
func (c *resumed) SetLinger(sec int) error {
	if s, ok := c.Conn.(interface{ SetLinger(int) error }); ok {
		return s.SetLinger(sec)
	}
	return nil
}

const (
	recordHeader    = 5
	recordHandshake = 22
	helloHeader     = 4
	typeClientHello = 1
	extServerName   = 0
	nameOfHost      = 0
)

// readHello reads records until they hold a whole ClientHello (RFC 8446, 4.1.2 and 5.1;
// RFC 5246, 7.4.1.2), however it is cut into records, and returns the server name and
// all that was read.
func readHello(r io.Reader) (name string, read []byte, err error) {
	var hello []byte
	for {
		begin := len(read)
		if read, err = readMore(r, read, recordHeader); err != nil {
			return "", read, err
		}
		header := read[begin:]
		length := int(binary.BigEndian.Uint16(header[3:]))
		if header[0] != recordHandshake || header[1] != 3 || length == 0 || length > maxRecordBytes {
			return "", read, errNoHello
		}
		if read, err = readMore(r, read, length); err != nil {
			return "", read, err
		}
		hello = append(hello, read[begin+recordHeader:]...)
		if hello[0] != typeClientHello {
			return "", read, errNoHello
		}
		if len(hello) < helloHeader {
			continue
		}
		want := helloHeader + int(hello[1])<<16 + int(hello[2])<<8 + int(hello[3])
		switch {
		case want > maxHelloBytes:
			return "", read, fmt.Errorf("%w: it has %d bytes", errNoHello, want)
		case len(hello) > want:
			return "", read, errNoHello // something follows before the server has answered
		case len(hello) == want:
			name, err = parseHello(hello[helloHeader:])
			return name, read, err
		}
	}
}

// readMore appends n bytes.
func readMore(r io.Reader, to []byte, n int) ([]byte, error) {
	at := len(to)
	to = append(to, make([]byte, n)...)
	if k, err := io.ReadFull(r, to[at:]); err != nil {
		return to[:at+k], err
	}
	return to, nil
}

// field is what is left of a structure of TLS.
type field []byte

// take returns the next n bytes, false when there are fewer.
func (f *field) take(n int) (field, bool) {
	if n > len(*f) {
		return nil, false
	}
	out := (*f)[:n]
	*f = (*f)[n:]
	return out, true
}

// vector returns what follows a length of so many bytes.
func (f *field) vector(bytes int) (field, bool) {
	head, ok := f.take(bytes)
	if !ok {
		return nil, false
	}
	n := 0
	for _, b := range head {
		n = n<<8 | int(b)
	}
	return f.take(n)
}

// parseHello returns the server name of a ClientHello.
func parseHello(hello field) (string, error) {
	_, ok := hello.take(2 + 32) // version and random
	session, ok1 := hello.vector(1)
	suites, ok2 := hello.vector(2)
	compression, ok3 := hello.vector(1)
	if !ok || !ok1 || !ok2 || !ok3 || len(session) > 32 || len(suites) < 2 || len(suites)%2 != 0 || len(compression) == 0 {
		return "", errNoHello
	}
	if len(hello) == 0 {
		return "", nil // TLS 1.2 may go without extensions
	}
	extensions, ok := hello.vector(2)
	if !ok || len(hello) != 0 {
		return "", errNoHello
	}
	name, found := "", false
	for len(extensions) > 0 {
		kind, ok := extensions.take(2)
		value, ok1 := extensions.vector(2)
		if !ok || !ok1 {
			return "", errNoHello
		}
		if binary.BigEndian.Uint16(kind) != extServerName {
			continue
		}
		if found {
			return "", errNoHello // two servers could take one each
		}
		found = true
		var err error
		if name, err = parseServerName(value); err != nil {
			return "", err
		}
	}
	return name, nil
}

// parseServerName returns the host of the extension (RFC 6066, 3), which has one name.
func parseServerName(value field) (string, error) {
	list, ok := value.vector(2)
	if !ok || len(value) != 0 {
		return "", errNoHello
	}
	kind, ok := list.take(1)
	host, ok1 := list.vector(2)
	if !ok || !ok1 || len(list) != 0 || kind[0] != nameOfHost {
		return "", errNoHello
	}
	name := strings.ToLower(string(host))
	normal, err := message.NormalizeAuthority(name)
	if err != nil || normal != name || len(name) > 253 || strings.ContainsAny(name, ":[]") {
		return "", fmt.Errorf("%w: its server name is none", errNoHello)
	}
	return name, nil
}
