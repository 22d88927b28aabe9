package forward

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"testing"
)

// hello is what a client of Go's sends first.
func hello(t testing.TB, cfg *tls.Config) []byte {
	t.Helper()
	near, far := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = tls.Client(near, cfg).Handshake()
	}()
	header := make([]byte, recordHeader)
	if _, err := io.ReadFull(far, header); err != nil {
		t.Fatal(err)
	}
	body := make([]byte, binary.BigEndian.Uint16(header[3:]))
	if _, err := io.ReadFull(far, body); err != nil {
		t.Fatal(err)
	}
	_ = far.Close()
	<-done
	return append(header, body...)
}

// cut makes records of n bytes out of one.
func cut(record []byte, n int) []byte {
	var out []byte
	for body := record[recordHeader:]; len(body) > 0; {
		k := min(n, len(body))
		out = append(out, record[0], record[1], record[2], byte(k>>8), byte(k))
		out = append(out, body[:k]...)
		body = body[k:]
	}
	return out
}

func TestServerNamesAreReadHoweverTheyAreCut(t *testing.T) {
	for _, cfg := range []*tls.Config{
		{ServerName: "Web.Shop.Example", InsecureSkipVerify: true},
		{ServerName: "web.shop.example", MaxVersion: tls.VersionTLS12, InsecureSkipVerify: true, NextProtos: []string{"h2"}},
	} {
		record := hello(t, cfg)
		for _, n := range []int{1, 3, 100, 1 << 14} {
			in := cut(record, n)
			name, read, err := readHello(bytes.NewReader(append(bytes.Clone(in), "more"...)))
			if name != "web.shop.example" || err != nil || !bytes.Equal(read, in) {
				t.Errorf("in records of %d bytes: %q, %v", n, name, err)
			}
		}
	}
	if name, _, err := readHello(bytes.NewReader(hello(t, &tls.Config{InsecureSkipVerify: true}))); name != "" || err != nil {
		t.Errorf("without a name: %q, %v", name, err)
	}
}

func TestWhatIsNoClientHelloIsRefused(t *testing.T) {
	good := hello(t, &tls.Config{ServerName: "a.example", InsecureSkipVerify: true})
	// The beginning and the end of the name's extension.
	at := bytes.Index(good, []byte("a.example")) - 9
	extension := good[at : at+9+len("a.example")]
	change := func(f func(b []byte) []byte) []byte { return f(bytes.Clone(good)) }
	twice := change(func(b []byte) []byte {
		b = append(b[:at:at], append(bytes.Clone(extension), b[at:]...)...)
		grow := func(i, size int) {
			n := 0
			for k := range size {
				n = n<<8 | int(b[i+k])
			}
			n += len(extension)
			for k := size - 1; k >= 0; k-- {
				b[i+k] = byte(n)
				n >>= 8
			}
		}
		grow(3, 2)
		grow(6, 3)
		session := int(b[recordHeader+helloHeader+34])
		suites := recordHeader + helloHeader + 35 + session
		grow(suites+2+int(binary.BigEndian.Uint16(b[suites:]))+2, 2)
		return b
	})
	for name, in := range map[string][]byte{
		"HTTP":           []byte("GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
		"alert":          change(func(b []byte) []byte { b[0] = 21; return b }),
		"version":        change(func(b []byte) []byte { b[1] = 2; return b }),
		"empty record":   {22, 3, 1, 0, 0},
		"long record":    {22, 3, 1, 0x40, 1},
		"server hello":   change(func(b []byte) []byte { b[5] = 2; return b }),
		"long hello":     change(func(b []byte) []byte { b[6] = 2; return b }),
		"two in one":     append(change(func(b []byte) []byte { b[4]++; return b }), 0),
		"name twice":     twice,
		"kind of a name": change(func(b []byte) []byte { b[at+6] = 1; return b }),
		"no name":        change(func(b []byte) []byte { b[at+9] = '/'; return b }),
		"a port":         change(func(b []byte) []byte { copy(b[at+9:], "a:8443333"); return b }),
	} {
		if got, _, err := readHello(bytes.NewReader(in)); !errors.Is(err, errNoHello) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	for n := range good {
		if _, _, err := readHello(bytes.NewReader(good[:n])); !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
			t.Fatalf("cut at %d: %v", n, err)
		}
	}
}

// FuzzServerName holds the parser to Go's server, where that has an opinion.
func FuzzServerName(f *testing.F) {
	f.Add(hello(f, &tls.Config{ServerName: "a.example", InsecureSkipVerify: true}))
	f.Add(cut(hello(f, &tls.Config{ServerName: "b.example", InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12}), 7))
	f.Fuzz(func(t *testing.T, in []byte) {
		name, read, err := readHello(bytes.NewReader(in))
		if !bytes.HasPrefix(in, read) {
			t.Fatal("what was read is not what came")
		}
		if err != nil {
			return
		}
		seen, stop := "", errors.New("enough")
		near, far := net.Pipe()
		go func() {
			_, _ = far.Write(in)
			_ = far.Close()
		}()
		called := false
		_ = tls.Server(near, &tls.Config{GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
			called, seen = true, h.ServerName
			return nil, stop
		}}).Handshake()
		_ = near.Close()
		if called && !equalFold(seen, name) {
			t.Fatalf("%q, and Go's server has %q", name, seen)
		}
	})
}

func equalFold(a, b string) bool { return bytes.EqualFold([]byte(a), []byte(b)) }
