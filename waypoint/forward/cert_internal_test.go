package forward

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

func TestForwardedCertificate(t *testing.T) {
	const (
		hash = "Hash=ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad;" // of "abc"
		uri  = "URI=spiffe://cluster.local/ns/shop/sa/client"
		by   = "By=spiffe://cluster.local/ns/shop/sa/waypoint;"
	)
	named := func(cn string) *x509.Certificate {
		return &x509.Certificate{Raw: []byte("abc"), Subject: pkix.Name{CommonName: cn, Organization: []string{"shop"}}}
	}
	waypoint := spiffeid.RequireFromString("spiffe://cluster.local/ns/shop/sa/waypoint")
	for _, c := range []struct {
		name string
		cert *x509.Certificate
		by   spiffeid.ID
		want string
	}{
		{"without one", nil, waypoint, by + uri},
		{"without anything", nil, spiffeid.ID{}, uri},
		{"SVID", &x509.Certificate{Raw: []byte("abc")}, waypoint, by + hash + `Subject="";` + uri},
		{"name", named("a"), waypoint, by + hash + `Subject="CN=a,O=shop";` + uri},
		{"name with quotes", named(`a";URI=spiffe://evil`), spiffeid.ID{}, hash + `Subject="CN=a\"\;URI=spiffe://evil,O=shop";` + uri},
		{"name of two lines", named("a\r\nx: y"), waypoint, by + hash + uri},
	} {
		client := &Client{Identity: spiffeid.RequireFromString("spiffe://cluster.local/ns/shop/sa/client"), Certificate: c.cert}
		for range 2 { // the second time as it is kept
			if got := client.cert(c.by); got != c.want {
				t.Errorf("%s:\n%s, want\n%s", c.name, got, c.want)
			}
		}
	}
}
