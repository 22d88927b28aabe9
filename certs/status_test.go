package certs_test

import (
	"encoding/base64"
	"encoding/json"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/tulle-mesh/tulle/certs"
)

func TestStatusTellsWhatTheCertificateSays(t *testing.T) {
	start := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	c := &clock{start}
	a := open(t, t.TempDir(), certs.AuthorityConfig{Now: c.Now})
	id := spiffeid.RequireFromString(web)
	svid, bundle, err := certs.LocalSigner{Authority: a, TTL: time.Hour}.Sign(t.Context(), id)
	must(t, err)
	s := certs.NewStatus(id, certs.StateValid, svid, bundle)
	s.RenewAt, s.Leases = start.Add(30*time.Minute), 2

	text, err := json.Marshal(s)
	must(t, err)
	var got map[string]any
	must(t, json.Unmarshal(text, &got))
	leaf := svid.Certificates[0]
	want := map[string]any{
		"identity":     web,
		"state":        "valid",
		"serial":       leaf.SerialNumber.Text(16),
		"issuerSerial": a.Chain()[0].SerialNumber.Text(16),
		"notBefore":    "2026-03-01T11:58:00Z",
		"notAfter":     "2026-03-01T13:00:00Z",
		"renewAt":      "2026-03-01T12:30:00Z",
		"leases":       2.0,
		"chain":        string(certs.EncodeChain(svid.Certificates...)),
		"roots":        string(a.BundlePEM()),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("status in JSON (-want +got):\n%s", diff)
	}
	var back certs.Status
	must(t, json.Unmarshal(text, &back))
	if diff := cmp.Diff(s, back, cmp.Comparer(func(a, b spiffeid.ID) bool { return a == b })); diff != "" {
		t.Errorf("status read back (-want +got):\n%s", diff)
	}
}

func TestAStatusWithoutACertificateHasNoTimes(t *testing.T) {
	s := certs.NewStatus(spiffeid.RequireFromString(web), certs.StateFailed, nil, nil)
	s.LastError = "refused"
	text, err := json.Marshal(s)
	must(t, err)
	if want := `{"identity":"` + web + `","state":"failed","lastError":"refused","leases":0}`; string(text) != want {
		t.Errorf("status %s, want %s", text, want)
	}
}

func TestDumpIsWhatIstioctlReads(t *testing.T) {
	a := open(t, t.TempDir(), certs.AuthorityConfig{})
	id := spiffeid.RequireFromString(web)
	svid, bundle, err := certs.LocalSigner{Authority: a}.Sign(t.Context(), id)
	must(t, err)
	for state, want := range map[certs.State]string{
		certs.StateValid: "Available", certs.StateRenewing: "Available", certs.StateOverdue: "Available",
		certs.StatePending: "Initializing",
		certs.StateFailed:  "Unavailable: failed: why", certs.StateExpired: "Unavailable: expired: why",
	} {
		s := certs.NewStatus(id, state, nil, nil)
		s.LastError = "why"
		if got := s.Dump(); got.State != want || len(got.CertChain) != 0 {
			t.Errorf("%s: dump %+v, want state %q", state, got, want)
		}
	}

	dump := certs.Dumps([]certs.Status{certs.NewStatus(id, certs.StateValid, svid, bundle)})[0]
	if dump.Identity != web || len(dump.CertChain) != 2 || len(dump.RootCerts) != 1 {
		t.Fatalf("dump of %s with %d certificates and %d roots", dump.Identity, len(dump.CertChain), len(dump.RootCerts))
	}
	// As istioctl does: the serial in base ten, the times in RFC 3339.
	got := dump.CertChain[0]
	serial, ok := new(big.Int).SetString(got.SerialNumber, 10)
	if !ok || serial.Cmp(svid.Certificates[0].SerialNumber) != 0 {
		t.Errorf("serial %s", got.SerialNumber)
	}
	for text, want := range map[string]time.Time{got.ValidFrom: svid.Certificates[0].NotBefore, got.ExpirationTime: svid.Certificates[0].NotAfter} {
		if at, err := time.Parse(time.RFC3339, text); err != nil || !at.Equal(want) {
			t.Errorf("time %s, want %v", text, want)
		}
	}
	pem, err := base64.StdEncoding.DecodeString(got.PEM)
	if err != nil || !strings.HasPrefix(string(pem), "-----BEGIN CERTIFICATE-----") {
		t.Errorf("PEM %.40q, %v", pem, err)
	}

	// Empty lists, not null.
	text, err := json.Marshal(certs.NewStatus(id, certs.StatePending, nil, nil).Dump())
	must(t, err)
	if want := `{"identity":"` + web + `","state":"Initializing","certChain":[],"rootCerts":[]}`; string(text) != want {
		t.Errorf("dump %s, want %s", text, want)
	}
}
