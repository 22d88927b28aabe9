package message_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/tulle-mesh/tulle/waypoint/message"
)

func TestNormalizePath(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"/", "/"},
		{"/a/b.c/d..e/...", "/a/b.c/d..e/..."},
		{"/%61%2D%7e%5f", "/a-~_"},
		{"/a%2fb%3a", "/a%2Fb%3A"},
		{"/a%2Fb", "/a%2Fb"},
		{"/a%5cb", "/a%5Cb"},
		{"/%2541", "/%2541"},
		{"/./a", "/a"},
		{"/a/.", "/a/"},
		{"/a/..", "/"},
		{"/a/../", "/"},
		{"/a/b/../../../c", "/c"},
		{"/..", "/"},
		{"/%2e%2E/a/%2e./b", "/b"},
		{"/a//b", "/a//b"},
		{"/a//../b", "/a/b"},
		{"/a//..", "/a/"},
		{"/.//a", "//a"},
		{"/..;/a", "/..;/a"},
		{"/a;b=c/d", "/a;b=c/d"},
		{"/.hidden/..x", "/.hidden/..x"},
		{"/[a]{b}|^`\"<>", "/[a]{b}|^`\"<>"},
		{"/a%0A", "/a%0A"},
		{"/%c3%a9", "/%C3%A9"},
	} {
		got, err := message.NormalizePath(c.in)
		if err != nil || got != c.want {
			t.Errorf("NormalizePath(%q) = %q, %v; want %q", c.in, got, err, c.want)
		}
	}
	for _, in := range []string{
		"", "a", "*", "http://a/", "%2Fa", "/a b", "/a\tb", "/a\r\nb", "/\x00", "/\x7f", "/é", "/a\\b", "/a#b", "/a?b",
		"/%", "/%4", "/%4g", "/%g4", "/%%34", "/%00", "/a%", "/a/%0",
	} {
		got, err := message.NormalizePath(in)
		var protocol *message.ProtocolError
		if !errors.As(err, &protocol) || protocol.Status != 400 {
			t.Errorf("NormalizePath(%q) = %q, %v; want to refuse it", in, got, err)
		}
	}
}

func TestFolded(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"/", "/"},
		{"/a/b.c", "/a/b.c"},
		{"/a%20b%2E", "/a%20b%2E"},
		{"/a%2Fb", "/a/b"},
		{"/a%5Cb", "/a/b"},
		{"/a%2fb%5cc", "/a/b/c"},
		{"//a///b//", "/a/b/"},
		{"/a/%2F/b", "/a/b"},
		{"/a/..%2Fb", "/b"},
		{"/a/..%5C..%5Cb", "/b"},
		{"/a/%2F../b", "/b"},
		{"/..;/admin", "/admin"},
		{"/a/..;x=y/admin", "/admin"},
		{"/a/.;/b", "/a/b"},
		{"/a/..;", "/"},
		{"/a;x/b;y=z", "/a;x/b;y=z"},
		{"/a/...;/b", "/a/...;/b"},
		{"*", "*"},
		{"", ""},
	} {
		if got := message.Folded(c.in); got != c.want {
			t.Errorf("Folded(%q) = %q, want %q", c.in, got, c.want)
		}
	}
}

func TestParseTarget(t *testing.T) {
	for _, c := range []struct {
		in, path, query string
		has             bool
	}{
		{"/a", "/a", "", false},
		{"/a?", "/a", "", true},
		{"/a/../b?c=/../%zz\\?d", "/b", "c=/../%zz\\?d", true},
	} {
		path, query, has, err := message.ParseTarget(c.in)
		if err != nil || path != c.path || query != c.query || has != c.has {
			t.Errorf("ParseTarget(%q) = %q, %q, %v, %v", c.in, path, query, has, err)
		}
	}
	for _, in := range []string{"", "?a", "a?b", "/?a b", "/?\n", "/?é", "/?a#b", "/?\x7f", "/ ?a"} {
		if _, _, _, err := message.ParseTarget(in); err == nil {
			t.Errorf("ParseTarget(%q) succeeded", in)
		}
	}
}

func TestNormalFormsDoNotAllocate(t *testing.T) {
	path := "/api/v1/namespaces/shop/carts/42%2F7.json"
	authority := "cart.shop.svc.cluster.local:8080"
	plain := "/api/v1/namespaces/shop/carts"
	allocs := testing.AllocsPerRun(100, func() {
		if _, err := message.NormalizePath(path); err != nil {
			t.Error(err)
		}
		if _, err := message.NormalizeAuthority(authority); err != nil {
			t.Error(err)
		}
		if message.Folded(plain) != plain {
			t.Error("folded")
		}
	})
	if allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}

func FuzzNormalizePath(f *testing.F) {
	for _, seed := range []string{"/", "/a/../b", "/%2e%2e/%2f", "/..;/a//b\\", "/%41%00", "*", "//%5c.."} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, path string) {
		folded := message.Folded(path)
		if again := message.Folded(folded); again != folded {
			t.Errorf("Folded(%q) = %q, and of that %q", path, folded, again)
		}
		normal, err := message.NormalizePath(path)
		if err != nil {
			return
		}
		if again, err := message.NormalizePath(normal); err != nil || again != normal {
			t.Errorf("NormalizePath(%q) = %q, and of that %q, %v", path, normal, again, err)
		}
		for _, form := range []string{normal, message.Folded(normal)} {
			if form == "" || form[0] != '/' || strings.ContainsAny(form, " \r\n\x00#?") {
				t.Errorf("%q becomes %q", path, form)
			}
			for s := range strings.SplitSeq(form[1:], "/") {
				if s == "." || s == ".." {
					t.Errorf("%q becomes %q, with a dot segment", path, form)
				}
			}
		}
		if folded := message.Folded(normal); strings.Contains(folded, "//") || strings.ContainsRune(folded, '\\') {
			t.Errorf("%q is folded to %q", normal, folded)
		}
	})
}

func BenchmarkNormalizePath(b *testing.B) {
	for _, path := range []string{"/api/v1/namespaces/shop/carts/42", "/api/../v1/%61"} {
		b.Run(path, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := message.NormalizePath(path); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkFolded(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		_ = message.Folded("/api/v1/namespaces/shop/carts/42")
	}
}
