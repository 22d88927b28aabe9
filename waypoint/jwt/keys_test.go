package jwt_test

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	api "github.com/tulle-mesh/tulle/api/waypoint"
	"github.com/tulle-mesh/tulle/waypoint/jwt"
)

const url = "https://joe.example.com/keys"

func check(t testing.TB, c *jwt.Checker, token string) error {
	t.Helper()
	_, err := c.Check(t.Context(), bearer(token))
	return err
}

func TestRequestsWaitForTheFirstKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, srv := fresh(t, "k"), &server{delay: 2 * time.Second}
		srv.set(url, jwks(t, s), 0)
		c := jwt.NewChecker(compile(t, keys(t, srv), remote("joe", url)))
		start := time.Now()
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				if err := check(t, c, s.token(t, `{"iss":"joe"}`)); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if waited := time.Since(start); waited != 2*time.Second || srv.count() != 1 {
			t.Errorf("waited %v, fetched %v", waited, srv.fetches)
		}
	})
}

func TestRequestsWaitNoLongerThanTheTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, srv := fresh(t, "k"), &server{delay: time.Hour}
		rule := remote("joe", url)
		rule.Timeout = durationpb.New(3 * time.Second)
		c := jwt.NewChecker(compile(t, keys(t, srv), rule))
		start := time.Now()
		if err := check(t, c, s.token(t, `{"iss":"joe"}`)); !refused(err, "not available") {
			t.Error(err)
		}
		if waited := time.Since(start); waited != 3*time.Second {
			t.Errorf("waited %v", waited)
		}
		// What the client gave up on, nobody waits for.
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start = time.Now()
		if _, err := c.Check(ctx, bearer(s.token(t, `{"iss":"joe"}`))); err == nil || time.Since(start) > time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
	})
}

func TestKeysAreRotated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old, young, srv := fresh(t, "old"), fresh(t, "young"), &server{}
		srv.set(url, jwks(t, old), 0)
		c := jwt.NewChecker(compile(t, keys(t, srv), remote("joe", url)))
		oldToken, youngToken := old.token(t, `{"iss":"joe"}`), young.token(t, `{"iss":"joe"}`)
		if err := check(t, c, oldToken); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Second)
		// A token by a key that nobody has seen makes us fetch at once.
		srv.set(url, jwks(t, old, young), 0)
		if err := check(t, c, youngToken); err != nil {
			t.Error(err)
		}
		if n := srv.count(); n != 2 {
			t.Errorf("%d fetches", n)
		}
		// One that is out of the set verifies nothing any more, remembered or not.
		srv.set(url, jwks(t, young), 0)
		time.Sleep(6 * time.Minute)
		synctest.Wait()
		if err := check(t, c, oldToken); err == nil {
			t.Error("a key counts that was withdrawn")
		}
		if err := check(t, c, youngToken); err != nil {
			t.Error(err)
		}
	})
}

func TestForgedTokensDoNotFetchOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, srv := fresh(t, "k"), &server{}
		srv.set(url, jwks(t, s), time.Hour)
		c := jwt.NewChecker(compile(t, keys(t, srv), remote("joe", url)))
		if err := check(t, c, s.token(t, `{"iss":"joe"}`)); err != nil {
			t.Fatal(err)
		}
		forged := fresh(t, "forged").token(t, `{"iss":"joe"}`)
		for range 100 {
			if err := check(t, c, forged); !refused(err, "no key") {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		// Of 100 seconds, every tenth may fetch.
		if n := srv.count(); n > 12 {
			t.Errorf("%d fetches", n)
		}
		// Those that name a key that we have do not fetch at all.
		before := srv.count()
		time.Sleep(time.Minute)
		if err := check(t, c, fresh(t, "k").token(t, `{"iss":"joe"}`)); !refused(err, "not by the key") || srv.count() != before {
			t.Errorf("%v, %d fetches", err, srv.count()-before)
		}
	})
}

func TestServersThatAreGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, srv := fresh(t, "k"), &server{}
		k := keys(t, srv)
		c := jwt.NewChecker(compile(t, k, remote("joe", url)))
		token := s.token(t, `{"iss":"joe"}`)
		if err := check(t, c, token); !refused(err, "not available") {
			t.Error(err)
		}
		if got := k.Sources(); len(got) != 1 || got[0].Err == nil || got[0].Keys != 0 || got[0].URL != url {
			t.Errorf("%+v", got)
		}
		// It comes back, and the next attempt finds it.
		srv.set(url, jwks(t, s), 0)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if err := check(t, c, token); err != nil {
			t.Error(err)
		}
		// It goes, or talks nonsense: its keys count for a day.
		srv.set(url, `{"keys":[]}`, 0)
		time.Sleep(12 * time.Hour)
		srv.set(url, "", 0)
		time.Sleep(11 * time.Hour)
		if err := check(t, c, token); err != nil {
			t.Error(err)
		}
		if got := k.Sources(); got[0].Err == nil || got[0].Keys != 1 {
			t.Errorf("%+v", got)
		}
		time.Sleep(2 * time.Hour)
		if err := check(t, c, token); !refused(err, "not available") {
			t.Error(err)
		}
		srv.set(url, jwks(t, s), 0)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if err := check(t, c, token); err != nil {
			t.Error(err)
		}
	})
}

func TestKeysAreFetchedAsOftenAsTheServerSays(t *testing.T) {
	for age, want := range map[time.Duration][2]int{
		0:                {12, 16}, // every 4 to 5 minutes
		10 * time.Second: {60, 77}, // no more than every 48 seconds
		30 * time.Minute: {3, 4},
		48 * time.Hour:   {2, 3}, // at least once an hour
	} {
		synctest.Test(t, func(t *testing.T) {
			srv := &server{}
			srv.set(url, jwks(t, fresh(t, "k")), age)
			compile(t, keys(t, srv), remote("joe", url))
			time.Sleep(61 * time.Minute)
			synctest.Wait()
			if n := srv.count(); n < want[0] || n > want[1] {
				t.Errorf("max-age %v: %d fetches in an hour, want %v", age, n, want)
			}
		})
	}
}

func TestIssuersSayWhereTheirKeysAre(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const issuer = "https://joe.example.com/"
		s, srv := fresh(t, "k"), &server{}
		at := "https://joe.example.com/.well-known/openid-configuration"
		plain := strings.Replace(url, "https", "http", 1)
		srv.set(url, jwks(t, s), 0)
		srv.set(plain, jwks(t, s), 0)
		k := keys(t, srv)
		c := jwt.NewChecker(compile(t, k, &api.TokenRule{Issuer: issuer}))
		token := s.token(t, `{"iss":"`+issuer+`"}`)
		for metadata, ok := range map[string]bool{
			`{"issuer":"https://jim.example.com/","jwks_uri":"` + url + `"}`: false,
			`{"issuer":"https://joe.example.com/"}`:                          false,
			`nothing`:                                                        false,
		} {
			srv.set(at, metadata, 0)
			time.Sleep(2 * time.Minute)
			if err := check(t, c, token); (err == nil) != ok {
				t.Errorf("%s: %v", metadata, err)
			}
		}
		srv.set(at, `{"issuer":"`+issuer+`","jwks_uri":"`+url+`"}`, 0)
		time.Sleep(2 * time.Minute)
		if err := check(t, c, token); err != nil {
			t.Error(err)
		}
		if got := k.Sources(); len(got) != 1 || got[0].Issuer != issuer || got[0].Keys != 1 || got[0].Err != nil {
			t.Errorf("%+v", got)
		}
	})
}

func TestSourcesAreShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, srv := fresh(t, "k"), &server{}
		srv.set(url, jwks(t, s), 0)
		k := keys(t, srv)
		a, b := compile(t, k, remote("joe", url)), compile(t, k, remote("joe", url), remote("jim", "https://jim/keys"))
		synctest.Wait()
		if n := srv.count(); n != 2 {
			t.Errorf("%d fetches", n)
		}
		if got := k.Sources(); len(got) != 2 || got[0].URL != "https://jim/keys" {
			t.Errorf("%+v", got)
		}
		c := jwt.NewChecker(a)
		a.Close()
		a.Close()
		b.Close()
		if got := k.Sources(); len(got) != 0 {
			t.Errorf("%+v", got)
		}
		before := srv.count()
		time.Sleep(time.Hour)
		if err := check(t, c, s.token(t, `{"iss":"joe"}`)); err != nil || srv.count() != before {
			t.Errorf("after close: %v, %d fetches", err, srv.count()-before)
		}
	})
}

func TestCertificatesAsKeys(t *testing.T) {
	srv := httptest.NewTLSServer(nil)
	defer srv.Close()
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})
	set, err := json.Marshal(map[string]string{"k": string(block), "other": "text"})
	if err != nil {
		t.Fatal(err)
	}
	a := compile(t, keys(t, &server{}), inline("joe", string(set)))
	if len(a.Warnings()) != 0 {
		t.Fatal(a.Warnings())
	}
	if err := check(t, jwt.NewChecker(a), fresh(t, "k").token(t, `{"iss":"joe"}`)); !refused(err, "not by the key") {
		t.Error(err)
	}
	many := map[string]string{}
	for i := range 65 {
		many[strings.Repeat("x", i+1)] = string(block)
	}
	set, _ = json.Marshal(many)
	if w := compile(t, keys(t, &server{}), inline("joe", string(set))).Warnings(); !slices.ContainsFunc(w, func(s string) bool { return strings.Contains(s, "more than 64") }) {
		t.Error(w)
	}
}
