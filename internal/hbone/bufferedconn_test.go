package hbone_test

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/internal/hbone"
)

// tlsRecord returns n octets of application data in a record's frame.
func tlsRecord(n int) []byte {
	return append([]byte{23, 3, 3, byte(n >> 8), byte(n)}, bytes.Repeat([]byte{byte(n)}, n)...)
}

// connsOfBothKinds runs f over a socket and over a connection in memory.
func connsOfBothKinds(t *testing.T, f func(t *testing.T, near *hbone.BufferedConn, far net.Conn)) {
	for name, make := range map[string]conns{"socket": tcpConns, "pipe": pipeConns} {
		t.Run(name, func(t *testing.T) {
			a, b := make(t)
			defer a.Close()
			defer b.Close()
			deadline := time.Now().Add(time.Minute)
			_ = a.SetDeadline(deadline)
			_ = b.SetDeadline(deadline)
			f(t, hbone.NewBufferedConn(a), b)
		})
	}
}

func TestBufferedConnHandsOutWholeRecordsOnly(t *testing.T) {
	sizes := []int{1, 16 << 10, 0, 300, 16<<10 + 256, 5, 4096, 4091, 8000}
	connsOfBothKinds(t, func(t *testing.T, near *hbone.BufferedConn, far net.Conn) {
		var all []byte
		for _, n := range sizes {
			all = append(all, tlsRecord(n)...)
		}
		go func() { _, _ = far.Write(all) }()
		for _, n := range sizes {
			want := tlsRecord(n)
			got := make([]byte, 0, len(want))
			for len(got) < len(want) {
				// Ask for much more than the record has.
				p := make([]byte, 64<<10)
				m, err := near.Read(p)
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, p[:m]...)
			}
			if !bytes.Equal(got, want) {
				t.Fatalf("record of %d octets: a read crossed its end, or changed it", n)
			}
		}
	})
}

func TestBufferedConnWaitsForTheWholeRecord(t *testing.T) {
	connsOfBothKinds(t, func(t *testing.T, near *hbone.BufferedConn, far net.Conn) {
		r := tlsRecord(5000)
		go func() { _, _ = far.Write(r[:4999]) }()
		_ = near.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
		if n, err := near.Read(make([]byte, 5)); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("read %d octets of an unfinished record, %v", n, err)
		}
		_ = near.SetReadDeadline(time.Now().Add(20 * time.Second))
		go func() { _, _ = far.Write(r[4999:]) }()
		got := make([]byte, len(r))
		if _, err := io.ReadFull(near, got); err != nil || !bytes.Equal(got, r) {
			t.Errorf("after the rest came: %v", err)
		}
	})
}

func TestBufferedConnPassesWhatIsNotTLS(t *testing.T) {
	for name, input := range map[string]string{
		"http":      "GET / HTTP/1.1\r\n",
		"oversized": "\x17\x03\x03\xff\xff" + strings.Repeat("x", 100),
		"short":     "\x17\x03",
		"cut":       string(tlsRecord(100)[:50]),
	} {
		t.Run(name, func(t *testing.T) {
			connsOfBothKinds(t, func(t *testing.T, near *hbone.BufferedConn, far net.Conn) {
				go func() { _, _ = io.WriteString(far, input); _ = far.Close() }()
				if got, err := io.ReadAll(near); err != nil || string(got) != input {
					t.Errorf("got %q, %v", got, err)
				}
			})
		})
	}
}

func TestBufferedConnWriteErrorSticks(t *testing.T) {
	a, b := net.Pipe()
	near := hbone.NewBufferedConn(a)
	_ = b.Close()
	_, first := near.Write([]byte("x"))
	_, second := near.Write([]byte("y"))
	if first == nil || second != first {
		t.Errorf("errors %v and %v, want the same twice", first, second)
	}
}

func TestHandshakeFailureNamesThePeer(t *testing.T) {
	c, s := tcpConns(t)
	go func() {
		_, _ = io.WriteString(s, "HTTP/1.1 400 Bad Request\r\n\r\n")
		_, _ = io.Copy(io.Discard, s)
		_ = s.Close()
	}()
	_, err := hbone.NewClient(tls.Client(hbone.WrapConn(c), clientTLS(t)), hbone.ClientConfig{})
	var header tls.RecordHeaderError
	if !errors.As(err, &header) || !strings.Contains(err.Error(), s.LocalAddr().String()) {
		t.Errorf("NewClient: %v, want a record header error that names %v", err, s.LocalAddr())
	}
}
