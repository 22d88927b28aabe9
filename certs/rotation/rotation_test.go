package rotation_test

import (
	"context"
	"errors"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"go.uber.org/goleak"

	"github.com/tulle-mesh/tulle/certs"
	"github.com/tulle-mesh/tulle/certs/rotation"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	_ x509svid.Source   = (*rotation.Lease)(nil)
	_ x509bundle.Source = (*rotation.Lease)(nil)
	_ rotation.Signer   = certs.LocalSigner{}
)

var td = spiffeid.RequireTrustDomainFromString("cluster.local")

func identity(sa string) spiffeid.ID { return spiffeid.RequireFromSegments(td, "ns", "shop", "sa", sa) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// signer is a real authority that can be made to fail or to wait.
type signer struct {
	certs.LocalSigner

	mu    sync.Mutex
	err   error
	calls []call
	gate  chan struct{} // when not nil, each request waits for one value
	busy  int
	most  int
}

type call struct {
	id spiffeid.ID
	at time.Time
}

func (s *signer) Sign(ctx context.Context, id spiffeid.ID) (*x509svid.SVID, *x509bundle.Bundle, error) {
	s.mu.Lock()
	s.calls = append(s.calls, call{id, time.Now()})
	err, gate := s.err, s.gate
	s.busy++
	s.most = max(s.most, s.busy)
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.busy--
		s.mu.Unlock()
	}()
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		}
	}
	if err != nil {
		return nil, nil, err
	}
	return s.LocalSigner.Sign(ctx, id)
}

func (s *signer) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

func (s *signer) seen() []call {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]call(nil), s.calls...)
}

// newSigner makes an authority in the bubble's time.
func newSigner(t testing.TB, ttl time.Duration) *signer {
	t.Helper()
	a, err := certs.OpenAuthority(filepath.Join(t.TempDir(), "ca"), certs.AuthorityConfig{TrustDomain: td})
	must(t, err)
	t.Cleanup(func() { a.Close() })
	return &signer{LocalSigner: certs.LocalSigner{Authority: a, TTL: ttl}}
}

func serial(t testing.TB, l *rotation.Lease) string {
	t.Helper()
	svid, err := l.GetX509SVID()
	must(t, err)
	if svid.ID != l.ID() {
		t.Fatalf("certificate of %s, want %s", svid.ID, l.ID())
	}
	return svid.Certificates[0].SerialNumber.Text(16)
}

func changed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func oneStatus(t testing.TB, m *rotation.Manager) certs.Status {
	t.Helper()
	all := m.Status()
	if len(all) != 1 {
		t.Fatalf("%d statuses: %+v", len(all), all)
	}
	return all[0]
}

func TestOneCertificatePerIdentityForgottenWithItsLastLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSigner(t, 0)
		m := rotation.NewManager(rotation.Config{Signer: s})
		defer m.Close()
		web1, web2, api := m.Acquire(identity("web")), m.Acquire(identity("web")), m.Acquire(identity("api"))
		for _, l := range []*rotation.Lease{web1, web2, api} {
			must(t, l.Ready(t.Context()))
		}
		if serial(t, web1) != serial(t, web2) {
			t.Error("two certificates for one identity")
		}
		if serial(t, web1) == serial(t, api) {
			t.Error("one certificate for two identities")
		}
		if n := len(s.seen()); n != 2 {
			t.Errorf("%d requests, want 2", n)
		}
		if all := m.Status(); len(all) != 2 || all[0].Identity != identity("api") || all[0].Leases != 1 || all[1].Leases != 2 {
			t.Errorf("status %+v", all)
		}

		web1.Release()
		web1.Release() // twice counts once
		if _, err := web1.GetX509SVID(); !errors.Is(err, rotation.ErrReleased) {
			t.Errorf("released lease: %v", err)
		}
		if err := web1.Ready(t.Context()); !errors.Is(err, rotation.ErrReleased) {
			t.Errorf("released lease is ready: %v", err)
		}
		first := serial(t, web2)
		gone := web2.Changed()
		web2.Release()
		synctest.Wait()
		if !changed(gone) || !changed(web2.Changed()) {
			t.Error("the end of the certificate is not told")
		}
		if got := oneStatus(t, m); got.Identity != identity("api") {
			t.Errorf("status %+v", got)
		}

		again := m.Acquire(identity("web"))
		must(t, again.Ready(t.Context()))
		if serial(t, again) == first {
			t.Error("the forgotten certificate came back")
		}
		again.Release()
		api.Release()
	})
}

func TestRotationAtHalfOfTheLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const ttl = 24 * time.Hour
		s := newSigner(t, ttl)
		m := rotation.NewManager(rotation.Config{Signer: s})
		defer m.Close()
		l := m.Acquire(identity("web"))
		defer l.Release()
		must(t, l.Ready(t.Context()))
		offsets := map[time.Duration]bool{}
		for range 8 {
			before, next := serial(t, l), l.Changed()
			start := time.Now()
			<-next
			took := time.Since(start)
			if low, high := ttl*45/100, ttl*55/100; took < low || took > high {
				t.Errorf("renewed after %v, want %v to %v", took, low, high)
			}
			offsets[took] = true
			if serial(t, l) == before {
				t.Error("changed, but the certificate is the same")
			}
			svid, err := l.GetX509SVID()
			must(t, err)
			if _, _, err := x509svid.Verify(svid.Certificates, l); err != nil {
				t.Errorf("the new certificate does not verify by the lease's bundle: %v", err)
			}
		}
		if len(offsets) < 4 {
			t.Errorf("times of renewal do not scatter: %v", offsets)
		}
		if n := len(s.seen()); n != 9 {
			t.Errorf("%d requests for 8 renewals", n)
		}
	})
}

func TestAValidCertificateIsKeptWhileRenewalFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const ttl = time.Hour
		s := newSigner(t, ttl)
		m := rotation.NewManager(rotation.Config{Signer: s})
		defer m.Close()
		l := m.Acquire(identity("web"))
		defer l.Release()
		must(t, l.Ready(t.Context()))
		issued := time.Now()
		first := serial(t, l)
		if got := oneStatus(t, m); got.State != certs.StateValid || got.Serial != first || !got.NotAfter.Equal(issued.Add(ttl)) ||
			got.RenewAt.Before(issued.Add(ttl*45/100)) || got.IssuerSerial == "" {
			t.Errorf("status %+v", got)
		}

		s.fail(errors.New("the authority is on holiday"))
		time.Sleep(ttl * 58 / 100)
		synctest.Wait()
		if serial(t, l) != first {
			t.Error("the valid certificate is gone")
		}
		if got := oneStatus(t, m); got.State != certs.StateOverdue || got.LastError != "the authority is on holiday" || got.RenewAt.IsZero() {
			t.Errorf("status %+v", got)
		}
		// Attempts thin out to one in a few minutes, and go on.
		calls := s.seen()[1:]
		for i := 1; i < len(calls); i++ {
			if gap := calls[i].at.Sub(calls[i-1].at); gap > 5*time.Minute {
				t.Errorf("attempt %d came %v after the one before", i, gap)
			}
		}
		if n := len(calls); n < 5 || n > 20 {
			t.Errorf("%d attempts in the first minutes", n)
		}

		time.Sleep(time.Until(issued.Add(ttl)))
		synctest.Wait()
		_, err := l.GetX509SVID()
		var unavailable *rotation.UnavailableError
		if !errors.As(err, &unavailable) || !unavailable.NotAfter.Equal(issued.Add(ttl)) || !errors.Is(err, unavailable.Err) {
			t.Errorf("after expiry: %v", err)
		}
		if _, err := l.GetX509BundleForTrustDomain(td); err == nil {
			t.Error("a bundle without a certificate")
		}
		if got := oneStatus(t, m); got.State != certs.StateExpired {
			t.Errorf("status after expiry %+v", got)
		}

		// Now that a workload waits, the authority's return is soon noticed.
		s.fail(nil)
		back := time.Now()
		must(t, l.Ready(t.Context()))
		if took := time.Since(back); took > 15*time.Second {
			t.Errorf("recovered after %v", took)
		}
		if got := oneStatus(t, m); got.State != certs.StateValid || got.LastError != "" || serial(t, l) == first {
			t.Errorf("status after recovery %+v", got)
		}
	})
}

// refusal is an error as an authority's decision.
type refusal struct{}

func (refusal) Error() string   { return "not for you" }
func (refusal) Permanent() bool { return true }

func TestReadySaysWhyThereIsNoCertificate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSigner(t, 0)
		s.fail(refusal{})
		m := rotation.NewManager(rotation.Config{Signer: s})
		defer m.Close()
		l := m.Acquire(identity("web"))
		defer l.Release()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		err := l.Ready(ctx)
		if !errors.Is(err, context.DeadlineExceeded) || !errors.As(err, new(refusal)) {
			t.Errorf("error %v, want the refusal and the deadline", err)
		}
		if got := oneStatus(t, m); got.State != certs.StateFailed || got.LastError != "not for you" {
			t.Errorf("status %+v", got)
		}
		// A pod's first moments: the refusal was one of those that pass.
		s.fail(nil)
		must(t, l.Ready(t.Context()))
		calls := s.seen()
		var last time.Duration
		for i := 1; i < len(calls); i++ {
			gap := calls[i].at.Sub(calls[i-1].at)
			if gap < last/2 || gap > 15*time.Second {
				t.Errorf("attempt %d came %v after the one before, which came after %v", i, gap, last)
			}
			last = gap
		}
	})
}

func TestReadyWhileTheFirstRequestIsUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSigner(t, 0)
		s.gate = make(chan struct{})
		m := rotation.NewManager(rotation.Config{Signer: s})
		defer m.Close()
		l := m.Acquire(identity("web"))
		defer l.Release()
		synctest.Wait()
		if got := oneStatus(t, m); got.State != certs.StatePending || !got.RenewAt.IsZero() {
			t.Errorf("status %+v", got)
		}
		if _, err := l.GetX509SVID(); err == nil || !errors.As(err, new(*rotation.UnavailableError)) {
			t.Errorf("error %v", err)
		}
		ready := make(chan error, 1)
		go func() { ready <- l.Ready(t.Context()) }()
		synctest.Wait()
		s.gate <- struct{}{}
		must(t, <-ready)
	})
}

func TestRequestsAreBoundedAndFirstOnesGoFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSigner(t, time.Hour)
		m := rotation.NewManager(rotation.Config{Signer: s, Concurrency: 2, RequestTimeout: 10 * time.Hour})
		defer m.Close()
		var leases []*rotation.Lease
		acquire := func(names ...string) {
			for _, name := range names {
				leases = append(leases, m.Acquire(identity(name)))
				synctest.Wait() // so that they queue in this order
			}
		}
		defer func() {
			for _, l := range leases {
				l.Release()
			}
		}()
		acquire("a", "b", "c", "d")
		for _, l := range leases {
			must(t, l.Ready(t.Context()))
		}

		s.mu.Lock()
		s.gate = make(chan struct{})
		s.calls, s.most = nil, 0
		s.mu.Unlock()
		time.Sleep(35 * time.Minute) // the renewals come: two are under way, two queue
		synctest.Wait()
		acquire("new1", "new2")
		if n := len(s.seen()); n != 2 {
			t.Fatalf("%d requests under way, want 2", n)
		}
		for range 6 {
			s.gate <- struct{}{}
			synctest.Wait()
		}
		calls := s.seen()
		if len(calls) != 6 {
			t.Fatalf("%d requests", len(calls))
		}
		if calls[2].id != identity("new1") || calls[3].id != identity("new2") {
			t.Errorf("after the two under way came %s and %s, want the new ones", calls[2].id, calls[3].id)
		}
		if s.most != 2 {
			t.Errorf("%d requests at once, want 2", s.most)
		}
	})
}

func TestReleaseEndsARequestUnderWayAndOneInTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSigner(t, 0)
		s.gate = make(chan struct{})
		m := rotation.NewManager(rotation.Config{Signer: s, Concurrency: 1})
		defer m.Close()
		under, queued, last := m.Acquire(identity("a")), (*rotation.Lease)(nil), (*rotation.Lease)(nil)
		synctest.Wait()
		queued = m.Acquire(identity("b"))
		synctest.Wait()
		last = m.Acquire(identity("c"))
		synctest.Wait()
		queued.Release()
		synctest.Wait()
		under.Release()
		synctest.Wait()
		if calls := s.seen(); len(calls) != 2 || calls[1].id != identity("c") {
			t.Errorf("requests %v, want the third in the first one's place", calls)
		}
		s.gate <- struct{}{}
		must(t, last.Ready(t.Context()))
		last.Release()
	})
}

func TestAPlaceGivenToOneWhoLeavesIsPassedOn(t *testing.T) {
	s := newSigner(t, 0)
	s.gate = make(chan struct{})
	m := rotation.NewManager(rotation.Config{Signer: s, Concurrency: 1})
	defer m.Close()
	// The first gives up its place just when the second gives up waiting for
	// it. Whichever way that goes, the place must not be lost.
	for range 300 {
		under, queued := m.Acquire(identity("a")), m.Acquire(identity("b"))
		var both sync.WaitGroup
		both.Go(under.Release)
		both.Go(queued.Release)
		both.Wait()
	}
	close(s.gate)
	l := m.Acquire(identity("c"))
	defer l.Release()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	must(t, l.Ready(ctx))
}

func TestCloseForgetsEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSigner(t, 0)
		m := rotation.NewManager(rotation.Config{Signer: s})
		ready := m.Acquire(identity("a"))
		must(t, ready.Ready(t.Context()))
		s.mu.Lock()
		s.gate = make(chan struct{})
		s.mu.Unlock()
		waiting := m.Acquire(identity("b"))
		result := make(chan error, 1)
		go func() { result <- waiting.Ready(t.Context()) }()
		synctest.Wait()
		m.Close()
		m.Close()
		if err := <-result; !errors.Is(err, rotation.ErrClosed) {
			t.Errorf("waiting lease: %v", err)
		}
		if _, err := ready.GetX509SVID(); !errors.Is(err, rotation.ErrClosed) {
			t.Errorf("ready lease: %v", err)
		}
		late := m.Acquire(identity("c"))
		if err := late.Ready(t.Context()); !errors.Is(err, rotation.ErrClosed) {
			t.Errorf("late lease: %v", err)
		}
		late.Release()
		ready.Release()
		waiting.Release()
		if all := m.Status(); len(all) != 0 {
			t.Errorf("status %+v", all)
		}
	})
}

// odd returns what no proper signer would.
type odd struct {
	svid   *x509svid.SVID
	bundle *x509bundle.Bundle
}

func (o odd) Sign(context.Context, spiffeid.ID) (*x509svid.SVID, *x509bundle.Bundle, error) {
	return o.svid, o.bundle, nil
}

func TestWhatASignerReturnsIsChecked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSigner(t, time.Hour)
		svid, bundle, err := s.Sign(t.Context(), identity("web"))
		must(t, err)
		time.Sleep(2 * time.Hour) // svid has expired
		fresh, _, err := s.Sign(t.Context(), identity("other"))
		must(t, err)
		for name, o := range map[string]odd{
			"nothing": {}, "no bundle": {svid: svid}, "no certificates": {svid: &x509svid.SVID{ID: identity("web")}, bundle: bundle},
			"expired": {svid, bundle}, "another identity": {fresh, bundle},
		} {
			m := rotation.NewManager(rotation.Config{Signer: o})
			l := m.Acquire(identity("web"))
			synctest.Wait()
			if got := oneStatus(t, m); got.State != certs.StateFailed || got.LastError == "" {
				t.Errorf("%s: status %+v", name, got)
			}
			l.Release()
			m.Close()
		}
	})
}

func TestACertificateOfNextToNoLifeDoesNotStormTheSigner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSigner(t, certs.MinLeafTTL)
		m := rotation.NewManager(rotation.Config{Signer: s})
		defer m.Close()
		l := m.Acquire(identity("web"))
		defer l.Release()
		time.Sleep(10 * time.Second)
		if n := len(s.seen()); n < 5 || n > 20 {
			t.Errorf("%d requests in 10 s for certificates that live 2 s", n)
		}
		serial(t, l)
	})
}
