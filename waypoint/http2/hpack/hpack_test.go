package hpack_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	xhpack "golang.org/x/net/http2/hpack"

	"github.com/tulle-mesh/tulle/waypoint/http2/hpack"
)

type pair struct{ name, value string }

func newDecoder() *hpack.Decoder {
	return &hpack.Decoder{MaxListSize: 64 << 10, MaxFields: 100}
}

func decode(t testing.TB, d *hpack.Decoder, block []byte) []pair {
	t.Helper()
	fields, err := d.Decode(block, nil)
	if err != nil {
		t.Fatalf("Decode(%x): %v", block, err)
	}
	var got []pair
	for _, f := range fields {
		if want := hpack.ValidName(f.Name) && hpack.ValidValue(f.Value); f.Valid != want {
			t.Errorf("%q: %q is said to be valid: %v", f.Name, f.Value, f.Valid)
		}
		got = append(got, pair{f.Name, f.Value})
	}
	return got
}

// randomHeads makes heads of fields that partly repeat, as those of real messages do.
func randomHeads(r *rand.Rand, n int) [][]pair {
	names := []string{":method", ":status", ":path", "content-type", "x-request-id", "date", "authorization", "cookie", "X-Upper", "via", "x-long", ""}
	heads := make([][]pair, n)
	for i := range heads {
		for range r.IntN(12) {
			p := pair{names[r.IntN(len(names))], ""}
			switch r.IntN(5) {
			case 0:
				p.value = fmt.Sprint(r.IntN(1000))
			case 1:
				p.value = strings.Repeat(string(rune(r.IntN(256))), r.IntN(1500))
			case 2:
				p.value = []string{"GET", "200", "/", "text/html", "gzip, deflate", " padded"}[r.IntN(6)]
			case 3:
				b := make([]byte, r.IntN(60))
				for j := range b {
					b[j] = byte(r.IntN(256))
				}
				p.value = string(b)
			case 4:
				p.value = "the same every time"
			}
			heads[i] = append(heads[i], p)
		}
	}
	return heads
}

func TestDecodesWhatAnotherEncoderWrites(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var b bytes.Buffer
	enc := xhpack.NewEncoder(&b)
	dec := newDecoder()
	for i, head := range randomHeads(r, 5000) {
		b.Reset()
		if i%500 == 499 {
			enc.SetMaxDynamicTableSize(uint32(r.IntN(4097)))
		}
		var want []pair
		for _, p := range head {
			_ = enc.WriteField(xhpack.HeaderField{Name: p.name, Value: p.value, Sensitive: r.IntN(20) == 0})
			want = append(want, p)
		}
		if diff := cmp.Diff(want, decode(t, dec, b.Bytes()), cmp.AllowUnexported(pair{})); diff != "" {
			t.Fatalf("head %d (-want +got):\n%s", i, diff)
		}
	}
}

func TestAnotherDecoderReadsWhatIsEncoded(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	var enc hpack.Encoder
	var got []pair
	dec := xhpack.NewDecoder(4096, func(f xhpack.HeaderField) { got = append(got, pair{f.Name, f.Value}) })
	ours := newDecoder()
	for i, head := range randomHeads(r, 5000) {
		if i%300 == 299 {
			for range r.IntN(3) {
				enc.SetMaxSize(uint32(r.IntN(6000)))
			}
		}
		got = nil
		var want []pair
		block := enc.Begin(nil)
		for _, p := range head {
			block = enc.Append(block, p.name, p.value)
			want = append(want, p)
		}
		n := r.Int64()
		block = enc.AppendInt(block, "content-length", n)
		want = append(want, pair{"content-length", fmt.Sprint(n)})
		if _, err := dec.Write(block); err != nil {
			t.Fatalf("head %d: %v", i, err)
		}
		_ = dec.Close()
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(pair{})); diff != "" {
			t.Fatalf("head %d (-want +got):\n%s", i, diff)
		}
		if diff := cmp.Diff(want, decode(t, ours, block), cmp.AllowUnexported(pair{})); diff != "" {
			t.Fatalf("head %d by our decoder (-want +got):\n%s", i, diff)
		}
	}
}

func TestHuffmanCodeIsThatOfTheStandard(t *testing.T) {
	for c := range 256 {
		want := strings.Repeat(string([]byte{byte(c)}), 3) + "abc"
		block := append([]byte{0x00, 0x01, 'x'}, byte(0x80|xhpack.HuffmanEncodeLength(want)))
		block = xhpack.AppendHuffmanString(block, want)
		if got := decode(t, newDecoder(), block); got[0].value != want {
			t.Errorf("octet %#x: %q", c, got[0].value)
		}
	}
}

func TestInvalidBlocksAreRefused(t *testing.T) {
	for name, block := range map[string][]byte{
		"index 0":                      {0x80},
		"index beyond the table":       {0xbe},
		"name beyond the table":        {0x7e, 0x01, 'x'},
		"no end of an integer":         {0xff, 0x80},
		"too large an integer":         {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f},
		"too long an integer":          {0xff, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00},
		"no name":                      {0x40},
		"no value":                     {0x40, 0x01, 'x'},
		"shorter value than told":      {0x40, 0x01, 'x', 0x05, 'y'},
		"size update behind a field":   {0x82, 0x20},
		"too large a size update":      {0x3f, 0xe2, 0x1f},
		"padding with zeros":           {0x00, 0x01, 'x', 0x81, 0x00},
		"padding of eight bits":        {0x00, 0x01, 'x', 0x82, 0x07, 0xff}, // '0', then 11 bits set
		"end of string":                {0x00, 0x01, 'x', 0x84, 0xff, 0xff, 0xff, 0xff},
		"padding of a whole octet":     {0x00, 0x01, 'x', 0x81, 0xff},
		"nothing behind a size update": {0x3f},
	} {
		if _, err := newDecoder().Decode(block, nil); !errors.Is(err, hpack.ErrDecode) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTooLargeBlocksLeaveTheDecoderUsable(t *testing.T) {
	var b bytes.Buffer
	enc := xhpack.NewEncoder(&b)
	dec := newDecoder()
	for i, head := range [][]pair{
		slicesRepeat(pair{"x", "y"}, 101),
		{{"x", strings.Repeat("y", 64<<10)}},
		slicesRepeat(pair{"x-filler", strings.Repeat("z", 2000)}, 40),
	} {
		b.Reset()
		for _, p := range head {
			_ = enc.WriteField(xhpack.HeaderField{Name: p.name, Value: p.value})
		}
		// This goes to the table behind the limit.
		later := pair{"later", fmt.Sprint("value", i)}
		_ = enc.WriteField(xhpack.HeaderField{Name: later.name, Value: later.value})
		if fields, err := dec.Decode(b.Bytes(), nil); !errors.Is(err, hpack.ErrTooLarge) || len(fields) != 0 {
			t.Errorf("head %d: %d fields, %v", i, len(fields), err)
		}
		b.Reset()
		_ = enc.WriteField(xhpack.HeaderField{Name: later.name, Value: later.value})
		if got := decode(t, dec, b.Bytes()); len(got) != 1 || got[0] != later || b.Len() > 2 {
			t.Errorf("after head %d: %v from %d octets", i, got, b.Len())
		}
	}
}

func slicesRepeat(p pair, n int) []pair {
	var list []pair
	for range n {
		list = append(list, p)
	}
	return list
}

func TestSecretsNeverGoToATable(t *testing.T) {
	var enc hpack.Encoder
	for _, name := range []string{"authorization", "proxy-authorization", "cookie", "set-cookie"} {
		for range 4 {
			block := enc.Append(enc.Begin(nil), name, "secret")
			if block[0]&0xf0 != 0x10 || !bytes.Contains(block, []byte("secret")) {
				t.Errorf("%s was written as %x", name, block)
			}
		}
	}
}

func TestWhatRepeatsShrinksAndWhatDiffersStaysOutside(t *testing.T) {
	var enc hpack.Encoder
	length := 0
	for i := range 1000 {
		block := enc.Append(enc.Begin(nil), "x-constant", "a value that is always the same")
		length = len(block)
		_ = enc.Append(block, "x-request-id", fmt.Sprintf("%032d", i))
	}
	if length != 1 {
		t.Errorf("the repeated field takes %d octets", length)
	}
}

func TestHeadsAreOneAllocation(t *testing.T) {
	var enc hpack.Encoder
	head := func() []byte {
		b := enc.Begin(nil)
		for _, p := range typicalHead {
			b = enc.Append(b, p.name, p.value)
		}
		return b
	}
	dec := newDecoder()
	for range 3 {
		decode(t, dec, head())
	}
	block := head()
	fields := make([]hpack.Field, 0, 32)
	if n := testing.AllocsPerRun(100, func() { _, _ = dec.Decode(block, fields) }); n > 1 {
		t.Errorf("decoding a head takes %v allocations", n)
	}
	b := make([]byte, 0, 4096)
	if n := testing.AllocsPerRun(100, func() {
		for _, p := range typicalHead {
			b = enc.Append(b[:0], p.name, p.value)
		}
	}); n > 0 {
		t.Errorf("encoding a head takes %v allocations", n)
	}
}

var typicalHead = []pair{
	{":method", "POST"}, {":scheme", "http"}, {":path", "/api/v1/items/12345?full=true"}, {":authority", "items.shop.svc.cluster.local:8080"},
	{"user-agent", "grpc-go/1.85.0"}, {"content-type", "application/grpc"}, {"te", "trailers"}, {"accept-encoding", "gzip"},
	{"traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}, {"x-request-id", "6b8cf3d2-1a51-4a8e-9d0b-7f3d5b0e2c11"},
	{"authorization", "Bearer eyJhbGciOiJFUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl"}, {"grpc-timeout", "1S"},
}

func FuzzDecode(f *testing.F) {
	r := rand.New(rand.NewPCG(5, 6))
	var b bytes.Buffer
	enc := xhpack.NewEncoder(&b)
	for _, head := range randomHeads(r, 20) {
		for _, p := range head {
			_ = enc.WriteField(xhpack.HeaderField{Name: p.name, Value: p.value})
		}
	}
	f.Add(b.Bytes(), uint16(10))
	f.Add([]byte{0x3f, 0xe1, 0x1f, 0x20, 0x82}, uint16(2))
	f.Fuzz(func(t *testing.T, data []byte, cut uint16) {
		// Two blocks, so that the second one uses what the first one left.
		at := min(int(cut), len(data))
		dec := newDecoder()
		var want []pair
		oracle := xhpack.NewDecoder(4096, func(f xhpack.HeaderField) { want = append(want, pair{f.Name, f.Value}) })
		for _, block := range [][]byte{data[:at], data[at:]} {
			want = nil
			_, theirErr := oracle.Write(block)
			if err := oracle.Close(); theirErr == nil {
				theirErr = err
			}
			fields, err := dec.Decode(block, nil)
			if errors.Is(err, hpack.ErrTooLarge) {
				continue
			}
			if err != nil {
				return // the other one takes size updates behind fields, too
			}
			if theirErr != nil {
				t.Fatalf("%x: the other decoder says %v", block, theirErr)
			}
			var got []pair
			for _, f := range fields {
				got = append(got, pair{f.Name, f.Value})
			}
			if diff := cmp.Diff(want, got, cmp.AllowUnexported(pair{})); diff != "" {
				t.Fatalf("%x (-want +got):\n%s", block, diff)
			}
		}
	})
}
