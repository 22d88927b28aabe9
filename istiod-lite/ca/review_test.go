package ca_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clientauthenticationv1 "k8s.io/client-go/kubernetes/typed/authentication/v1"

	"github.com/tulle-mesh/tulle/istiod-lite/ca"
)

// reviews answers as an API server does, and counts.
type reviews struct {
	clientauthenticationv1.TokenReviewInterface
	asked  atomic.Int32
	answer func(token string) (authenticationv1.TokenReviewStatus, error)
}

func (r *reviews) Create(ctx context.Context, review *authenticationv1.TokenReview, _ metav1.CreateOptions) (*authenticationv1.TokenReview, error) {
	r.asked.Add(1)
	select {
	case <-time.After(10 * time.Millisecond): // in virtual time
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	status, err := r.answer(review.Spec.Token)
	return &authenticationv1.TokenReview{Status: status}, err
}

// jwt is a token that says until when it is good.
func jwt(name string, expiry time.Time) string {
	return "e30." + base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, `{"sub":%q,"exp":%d}`, name, expiry.Unix())) + ".c2ln"
}

// known is what an API server says of a token bound to a pod.
func known(node string) authenticationv1.TokenReviewStatus {
	extra := map[string]authenticationv1.ExtraValue{
		"authentication.kubernetes.io/pod-name": {"ztunnel-1"}, "authentication.kubernetes.io/pod-uid": {"u1"},
	}
	if node != "" {
		extra["authentication.kubernetes.io/node-name"] = authenticationv1.ExtraValue{node}
	}
	return authenticationv1.TokenReviewStatus{Authenticated: true, Audiences: []string{"istio-ca"},
		User: authenticationv1.UserInfo{Username: "system:serviceaccount:istio-system:ztunnel", Extra: extra}}
}

func authenticator(t *testing.T, r *reviews, pods ca.Pods) *ca.ReviewAuthenticator {
	t.Helper()
	a, err := ca.NewReviewAuthenticator(ca.ReviewConfig{Reviews: r, Pods: pods})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestAnAnswerAboutATokenIsBelievedForAShortWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &reviews{answer: func(string) (authenticationv1.TokenReviewStatus, error) { return known("n1"), nil }}
		a := authenticator(t, r, nil)
		token := jwt("z", time.Now().Add(45*time.Second))
		var wg sync.WaitGroup
		for range 20 { // all at once: one question
			wg.Go(func() {
				if caller, err := a.Authenticate(t.Context(), token); err != nil || caller.Account() != "istio-system/ztunnel" || caller.PodUID != "u1" || caller.Node != "n1" {
					t.Errorf("%+v, %v", caller, err)
				}
			})
		}
		wg.Wait()
		time.Sleep(20 * time.Second)
		if _, err := a.Authenticate(t.Context(), token); err != nil || r.asked.Load() != 1 {
			t.Errorf("%v, asked %d times, want once", err, r.asked.Load())
		}
		time.Sleep(15 * time.Second)
		if _, err := a.Authenticate(t.Context(), token); err != nil || r.asked.Load() != 2 {
			t.Errorf("%v, asked %d times, want again after the answer's life", err, r.asked.Load())
		}
		time.Sleep(15 * time.Second) // past the token's own end, within the answer's
		if _, err := a.Authenticate(t.Context(), token); err == nil || r.asked.Load() != 2 {
			t.Errorf("an expired token: %v, asked %d times", err, r.asked.Load())
		}
	})
}

func TestWhatIsRefusedIsAskedAgainSoonerAndUnavailableAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		down := errors.New("connection refused")
		answers := map[string]error{}
		r := &reviews{answer: func(token string) (authenticationv1.TokenReviewStatus, error) {
			return authenticationv1.TokenReviewStatus{Error: "unknown"}, answers[token]
		}}
		a := authenticator(t, r, nil)
		bad, out := jwt("bad", time.Now().Add(time.Hour)), jwt("out", time.Now().Add(time.Hour))
		answers[out] = down
		for range 3 {
			if _, err := a.Authenticate(t.Context(), bad); err == nil || errors.Is(err, ca.ErrUnavailable) {
				t.Errorf("bad token: %v", err)
			}
		}
		if n := r.asked.Load(); n != 1 {
			t.Errorf("asked %d times about a bad token, want once", n)
		}
		time.Sleep(6 * time.Second)
		_, _ = a.Authenticate(t.Context(), bad)
		if n := r.asked.Load(); n != 2 {
			t.Errorf("asked %d times, want again", n)
		}
		for range 2 {
			if _, err := a.Authenticate(t.Context(), out); !errors.Is(err, ca.ErrUnavailable) {
				t.Errorf("API server away: %v", err)
			}
		}
		if n := r.asked.Load(); n != 4 {
			t.Errorf("asked %d times, want each time while the API server is away", n)
		}
	})
}

func TestOfReviewsUnderWayThereAreFew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var now, most atomic.Int32
		r := &reviews{answer: func(string) (authenticationv1.TokenReviewStatus, error) {
			most.Store(max(most.Load(), now.Add(1)))
			time.Sleep(time.Second)
			now.Add(-1)
			return known("n1"), nil
		}}
		a := authenticator(t, r, nil)
		var wg sync.WaitGroup
		for i := range 100 {
			wg.Go(func() {
				if _, err := a.Authenticate(t.Context(), jwt(fmt.Sprint(i), time.Now().Add(time.Hour))); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if n := most.Load(); n > 16 {
			t.Errorf("%d at a time", n)
		}
		// Who cannot wait is told that nothing is known, not that it is refused.
		release := make(chan struct{})
		r.answer = func(string) (authenticationv1.TokenReviewStatus, error) { <-release; return known("n1"), nil }
		for i := range 16 {
			wg.Go(func() { _, _ = a.Authenticate(t.Context(), jwt(fmt.Sprint("slow", i), time.Now().Add(time.Hour))) })
		}
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := a.Authenticate(ctx, jwt("late", time.Now().Add(time.Hour))); !errors.Is(err, ca.ErrUnavailable) {
			t.Errorf("no slot: %v", err)
		}
		close(release)
		wg.Wait()
	})
}

func TestWhatAReviewMustSay(t *testing.T) {
	change := func(f func(*authenticationv1.TokenReviewStatus)) authenticationv1.TokenReviewStatus {
		s := known("n1")
		f(&s)
		return s
	}
	for name, tt := range map[string]struct {
		status authenticationv1.TokenReviewStatus
		want   string
	}{
		"no audience":      {change(func(s *authenticationv1.TokenReviewStatus) { s.Audiences = nil }), "audience istio-ca"},
		"other audience":   {change(func(s *authenticationv1.TokenReviewStatus) { s.Audiences = []string{"api"} }), "audience istio-ca"},
		"a person":         {change(func(s *authenticationv1.TokenReviewStatus) { s.User.Username = "alice" }), "no service account"},
		"half a name":      {change(func(s *authenticationv1.TokenReviewStatus) { s.User.Username = "system:serviceaccount:x" }), "no service account"},
		"not known at all": {authenticationv1.TokenReviewStatus{Error: "invalid bearer token"}, "invalid bearer token"},
	} {
		t.Run(name, func(t *testing.T) {
			a := authenticator(t, &reviews{answer: func(string) (authenticationv1.TokenReviewStatus, error) { return tt.status, nil }}, nil)
			_, err := a.Authenticate(t.Context(), jwt("x", time.Now().Add(time.Hour)))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
}

func TestWhatIsNoTokenIsNotAskedAbout(t *testing.T) {
	r := &reviews{answer: func(string) (authenticationv1.TokenReviewStatus, error) { return known("n1"), nil }}
	a := authenticator(t, r, nil)
	for _, token := range []string{"x", "a.b", "a.!!.c", "a.e30", "a.bm90IGpzb24.c", strings.Repeat("a", 17<<10), jwt("old", time.Now().Add(-time.Hour))} {
		if _, err := a.Authenticate(t.Context(), token); err == nil {
			t.Errorf("%.20q is accepted", token)
		}
	}
	if n := r.asked.Load(); n != 0 {
		t.Errorf("asked %d times", n)
	}
}

// podTable is what the control plane knows of pods.
type podTable map[string]ca.Pod

func (p podTable) Pod(ns, name string) (ca.Pod, bool) { pod, ok := p[ns+"/"+name]; return pod, ok }

// TestAnOlderAPIServerLeavesTheNodeToThePod does not say nodes in reviews.
func TestAnOlderAPIServerLeavesTheNodeToThePod(t *testing.T) {
	pods := podTable{}
	r := &reviews{answer: func(string) (authenticationv1.TokenReviewStatus, error) { return known(""), nil }}
	a := authenticator(t, r, pods)
	token := jwt("z", time.Now().Add(time.Hour))
	if caller, err := a.Authenticate(t.Context(), token); err != nil || caller.Node != "" {
		t.Errorf("%+v, %v", caller, err)
	}
	pods["istio-system/ztunnel-1"] = ca.Pod{UID: "another", Node: "n9"}
	if caller, _ := a.Authenticate(t.Context(), token); caller.Node != "" {
		t.Errorf("the node of a pod with another UID is believed: %+v", caller)
	}
	pods["istio-system/ztunnel-1"] = ca.Pod{UID: "u1", Node: "n1"}
	if caller, _ := a.Authenticate(t.Context(), token); caller.Node != "n1" {
		t.Errorf("%+v, want the pod's node", caller)
	}
}

// FuzzToken has whatever a client sends taken apart without a panic.
func FuzzToken(f *testing.F) {
	good := jwt("z", time.Now().Add(time.Hour))
	for i := 0; i <= len(good); i += 7 {
		f.Add(good[:i])
	}
	f.Add("a." + base64.RawURLEncoding.EncodeToString([]byte(`{"exp":1e300}`)) + ".c")
	r := &reviews{answer: func(string) (authenticationv1.TokenReviewStatus, error) {
		return authenticationv1.TokenReviewStatus{}, nil
	}}
	f.Fuzz(func(t *testing.T, token string) {
		a, err := ca.NewReviewAuthenticator(ca.ReviewConfig{Reviews: r})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := a.Authenticate(ctx, token); err == nil {
			t.Error("accepted")
		}
	})
}
