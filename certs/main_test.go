package certs_test

import (
	"os"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"go.uber.org/goleak"

	"github.com/tulle-mesh/tulle/certs"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(killChildEnv); dir != "" {
		killChild(dir)
		return
	}
	goleak.VerifyTestMain(m)
}

var td = spiffeid.RequireTrustDomainFromString("cluster.local")

func identity(ns, sa string) spiffeid.ID { return spiffeid.RequireFromSegments(td, "ns", ns, "sa", sa) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func open(t testing.TB, dir string, cfg certs.AuthorityConfig) *certs.Authority {
	t.Helper()
	if cfg.TrustDomain.IsZero() {
		cfg.TrustDomain = td
	}
	a, err := certs.OpenAuthority(dir, cfg)
	must(t, err)
	t.Cleanup(func() { a.Close() })
	return a
}

// clock is a hand-set one.
type clock struct{ now time.Time }

func (c *clock) Now() time.Time { return c.now }
