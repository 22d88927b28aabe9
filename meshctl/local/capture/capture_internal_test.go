package capture

import (
	"encoding/binary"
	"testing"
)

// frame builds an Ethernet frame with an IPv4 TCP segment.
func frame(from, to uint16, payload string) []byte {
	b := make([]byte, 14, 128)
	binary.BigEndian.PutUint16(b[12:], 0x0800)
	ip := make([]byte, 20)
	ip[0], ip[9] = 0x45, 6
	binary.BigEndian.PutUint16(ip[2:], uint16(40+len(payload)))
	tcp := make([]byte, 20)
	binary.BigEndian.PutUint16(tcp, from)
	binary.BigEndian.PutUint16(tcp[2:], to)
	tcp[12] = 5 << 4
	return append(append(append(b, ip...), tcp...), payload...)
}

func TestParseFindsPortAndPayload(t *testing.T) {
	protocol, port, payload := parse(append(frame(54321, 80, "hello"), 0, 0, 0)) // padding is not payload
	if protocol != "tcp" || port != 80 || string(payload) != "hello" {
		t.Errorf("parse: %s %d %q", protocol, port, payload)
	}
}

func TestATruncatedFrameIsSearchedAsFarAsItGoes(t *testing.T) {
	whole := frame(54321, 80, "hello")
	for n := range len(whole) {
		_, _, payload := parse(whole[:n])
		if headers := len(whole) - len("hello"); n > headers && string(payload) != "hello"[:n-headers] {
			t.Errorf("a frame cut to %d bytes has the payload %q", n, payload)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(frame(1, 2, "x"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _, payload := parse(b)
		if len(payload) > len(b) {
			t.Error("more payload than frame")
		}
	})
}
