package jwt_test

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tulle-mesh/tulle/waypoint/jwt"
)

// TestKeysRotateUnderLoad has clients ask all the time, with tokens of the key that the
// issuer signs with just then, while it goes through five keys; each is in the set from
// before it is used until after. None is refused, and few fetches do.
func TestKeysRotateUnderLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const generations = 5
		srv := &server{}
		signers := []signer{fresh(t, "k0")}
		tokens := []string{signers[0].token(t, `{"iss":"joe"}`)}
		for i := 1; i < generations; i++ {
			signers = append(signers, fresh(t, fmt.Sprint("k", i)))
			tokens = append(tokens, signers[i].token(t, `{"iss":"joe"}`))
		}
		srv.set(url, jwks(t, signers[0]), 0)
		c := jwt.NewChecker(compile(t, keys(t, srv), remote("joe", url)))
		var now atomic.Int64
		done := make(chan struct{})
		var wg sync.WaitGroup
		var asked atomic.Int64
		for range 8 {
			wg.Go(func() {
				for {
					select {
					case <-done:
						return
					case <-time.After(100 * time.Millisecond):
					}
					asked.Add(1)
					if err := check(t, c, tokens[now.Load()]); err != nil {
						t.Errorf("key %d: %v", now.Load(), err)
						return
					}
				}
			})
		}
		for i := 1; i < generations; i++ {
			time.Sleep(30 * time.Second)
			srv.set(url, jwks(t, signers[i-1], signers[i]), 0)
			time.Sleep(10 * time.Second)
			now.Store(int64(i)) // seen first by whoever asks first
		}
		time.Sleep(30 * time.Second)
		close(done)
		wg.Wait()
		if asked.Load() < 1000 || srv.count() > 2*generations {
			t.Errorf("%d requests, %d fetches", asked.Load(), srv.count())
		}
	})
}

// TestServersThatMisbehave are real ones: each costs its own issuer's tokens, for at most
// the rule's timeout, and nobody else's.
func TestServersThatMisbehave(t *testing.T) {
	good := fresh(t, "k")
	set := jwks(t, good)
	hang := make(chan struct{})
	mux := http.NewServeMux()
	mux.HandleFunc("/good", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, set) })
	mux.HandleFunc("/huge", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, strings.TrimSuffix(set, "}"), `,"x":"`)
		for range 2048 {
			if _, err := w.Write(make([]byte, 1024)); err != nil {
				return
			}
		}
	})
	mux.HandleFunc("/malformed", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, set[:len(set)/2]) })
	mux.HandleFunc("/many", func(w http.ResponseWriter, _ *http.Request) {
		key := strings.TrimSuffix(strings.TrimPrefix(set, `{"keys":[`), "]}")
		fmt.Fprint(w, `{"keys":[`+strings.Repeat(key+",", 999)+key+"]}")
	})
	mux.HandleFunc("/deep", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, strings.Repeat("[", 100_000)) })
	mux.HandleFunc("/html", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") })
	mux.HandleFunc("/fails", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500); fmt.Fprint(w, set) })
	mux.HandleFunc("/loop", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/loop", 302) })
	mux.HandleFunc("/hangs", func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-hang:
		case <-r.Context().Done():
		}
	})
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	t.Cleanup(func() { close(hang) })
	gone := httptest.NewServer(mux)
	gone.Close()

	k := jwt.NewKeys(jwt.Config{Fetcher: jwt.NewHTTPFetcher((&net.Dialer{}).DialContext)})
	t.Cleanup(k.Close)
	for path, accepted := range map[string]bool{
		srv.URL + "/good": true, srv.URL + "/huge": false, srv.URL + "/malformed": false, srv.URL + "/many": false, srv.URL + "/deep": false, srv.URL + "/html": false,
		srv.URL + "/fails": false, srv.URL + "/loop": false, srv.URL + "/hangs": false, srv.URL + "/none": false, gone.URL + "/good": false,
	} {
		rule := remote(path, path)
		rule.Timeout = durationpb.New(300 * time.Millisecond)
		if accepted {
			rule.Timeout = nil
		}
		start := time.Now()
		err := check(t, jwt.NewChecker(compile(t, k, rule)), good.token(t, fmt.Sprintf(`{"iss":%q}`, path)))
		switch {
		case accepted && err != nil:
			t.Errorf("%s: %v", path, err)
		case !accepted && !refused(err, ""):
			t.Errorf("%s: %v", path, err)
		case time.Since(start) > 10*time.Second:
			t.Errorf("%s took %v", path, time.Since(start))
		}
	}
}
