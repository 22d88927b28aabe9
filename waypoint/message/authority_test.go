package message_test

import (
	"strings"
	"testing"

	"github.com/tulle-mesh/tulle/waypoint/message"
)

func TestNormalizeAuthority(t *testing.T) {
	long := strings.Repeat("a.", 126) + "a"
	for _, c := range []struct{ in, want string }{
		{"cart", "cart"},
		{"Cart.Shop:8080", "cart.shop:8080"},
		{"cart.shop.", "cart.shop"},
		{"CART.:80", "cart:80"},
		{"a_b-c~d.1", "a_b-c~d.1"},
		{"10.0.0.1:1", "10.0.0.1:1"},
		{"[::1]", "[::1]"},
		{"[0:0::0:1]:443", "[::1]:443"},
		{"[FD00::A]:65535", "[fd00::a]:65535"},
		{"[::ffff:10.0.0.1]", "[::ffff:10.0.0.1]"},
		{long, long},
	} {
		got, err := message.NormalizeAuthority(c.in)
		if err != nil || got != c.want {
			t.Errorf("NormalizeAuthority(%q) = %q, %v; want %q", c.in, got, err, c.want)
		}
	}
	for _, in := range []string{
		"", ":80", ".", "..", ".a", "a..b", "a..", "a:", "a:0", "a:080", "a:65536", "a:123456", "a:8o", "a:80:80", "a: 80",
		"user@a", "user:pw@a", "a b", "a/b", "a?b", "a#b", "a,b", "a;b", "a%41", "a\\b", "é", "a\x00", "a\r\n", "a*", "(a)",
		"[::1", "::1", "[]", "[10.0.0.1]", "[fe80::1%25eth0]", "[fe80::1%eth0]", "[::1]80", "[::1]:", "[::g]", "[v1.a]",
		strings.Repeat("a", 64), long + ".b",
	} {
		if got, err := message.NormalizeAuthority(in); err == nil {
			t.Errorf("NormalizeAuthority(%q) = %q, want to refuse it", in, got)
		}
	}
}

func FuzzNormalizeAuthority(f *testing.F) {
	for _, seed := range []string{"a:80", "A.b.", "[::1]:1", "[::ffff:1.2.3.4]", "u@h"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, authority string) {
		normal, err := message.NormalizeAuthority(authority)
		if err != nil {
			return
		}
		if again, err := message.NormalizeAuthority(normal); err != nil || again != normal {
			t.Errorf("NormalizeAuthority(%q) = %q, and of that %q, %v", authority, normal, again, err)
		}
		if normal != strings.ToLower(normal) || strings.ContainsAny(normal, "@/?# ,") {
			t.Errorf("%q becomes %q", authority, normal)
		}
	})
}

func BenchmarkNormalizeAuthority(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := message.NormalizeAuthority("cart.shop.svc.cluster.local:8080"); err != nil {
			b.Fatal(err)
		}
	}
}
