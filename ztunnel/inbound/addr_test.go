package inbound

import (
	"strings"
	"testing"
)

func FuzzAuthority(f *testing.F) {
	for _, s := range []string{"10.0.0.1:80", "[2001:db8::1]:443", "[fe80::1%eth0]:1", "host:80", "10.0.0.1", ":80", "[::ffff:10.0.0.1]:80", "010.0.0.1:80", "10.0.0.1:080"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		ap, err := parseAuthority(s)
		if err != nil {
			if status(err) != 400 {
				t.Errorf("%q: status %d", s, status(err))
			}
			return
		}
		if !ap.IsValid() || ap.Port() == 0 || ap.Addr().Zone() != "" || ap.Addr().Is4In6() {
			t.Errorf("%q accepted as %v", s, ap)
		}
	})
}

func TestForwardedHost(t *testing.T) {
	for in, want := range map[string]string{
		`for="10.0.0.1:80";host=web.shop.svc.cluster.local`: "web.shop.svc.cluster.local",
		`for=1.2.3.4;Host="quoted"`:                         "quoted",
		`for=1.2.3.4`:                                       "",
		``:                                                  "",
		`for=a, for=b;host=second`:                          "",
		`host=` + strings.Repeat("x", 300):                  "",
	} {
		if got := forwardedHost(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}
