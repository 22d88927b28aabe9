package upstream_test

import (
	"strings"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/waypoint/message"
	"github.com/tulle-mesh/tulle/waypoint/upstream"
)

var someDay = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

func TestSessionsEnd(t *testing.T) {
	b := newBackend(t, upstream.Config{}, nil, endpoints(1))
	target := pick(t, b, upstream.Options{})
	p := upstream.SessionPolicy{Absolute: time.Hour, Idle: 10 * time.Minute}
	token := target.Token(upstream.Session{}, someDay)
	later := func(d time.Duration) time.Time { return someDay.Add(d) }

	if s := p.Read(token, later(9*time.Minute)); s.Target == 0 || !s.Issued.Equal(someDay) {
		t.Errorf("session %+v after nine minutes", s)
	}
	if s := p.Read(token, later(10*time.Minute)); s.Target != 0 {
		t.Error("an idle session goes on")
	}
	// Each request renews it, until the absolute end.
	for m := 5; m < 60; m += 5 {
		s := p.Read(token, later(time.Duration(m)*time.Minute))
		if s.Target == 0 {
			t.Fatalf("the session has ended after %d minutes", m)
		}
		token = target.Token(s, later(time.Duration(m)*time.Minute))
	}
	if s := p.Read(token, later(time.Hour)); s.Target != 0 {
		t.Error("a session is older than it may be")
	}
	if s := p.Read(target.Token(upstream.Session{}, later(time.Hour)), someDay); s.Target != 0 {
		t.Error("a token from the future is taken")
	}
}

// A browser's way through: bound, kept, renewed, ended; the application's own cookies
// stay.
func TestAffinity(t *testing.T) {
	b := newBackend(t, upstream.Config{}, nil, endpoints(5))
	for name, a := range map[string]upstream.Affinity{
		"cookie":           {Cookie: "sticky"},
		"permanent cookie": {Cookie: "sticky", Permanent: true, SessionPolicy: upstream.SessionPolicy{Absolute: time.Hour}},
		"idle cookie":      {Cookie: "sticky", SessionPolicy: upstream.SessionPolicy{Idle: time.Minute, Absolute: time.Hour}},
		"header":           {Header: "x-session"},
		"idle header":      {Header: "x-session", SessionPolicy: upstream.SessionPolicy{Idle: time.Minute}},
	} {
		now := someDay
		var jar message.Header
		request := func() (*upstream.Target, *message.Response) {
			was := a.Read(&message.Request{Header: jar}, now)
			target := pick(t, b, upstream.Options{Session: was.Target})
			r := &message.Response{Status: 200, Header: message.Header{{Name: "set-cookie", Value: "own=1"}}}
			a.Write(r, target, was, "", now)
			if v := r.Header.Get(a.Header); v != "" && a.Header != "" {
				jar = message.Header{{Name: a.Header, Value: v}}
			}
			for _, f := range r.Header[1:] {
				if f.Name == "set-cookie" {
					pair, attributes, _ := strings.Cut(f.Value, ";")
					if a.Permanent != strings.Contains(attributes, "Max-Age=3600") {
						t.Errorf("%s: %s", name, f.Value)
					}
					jar = message.Header{{Name: "cookie", Value: "own=1; " + pair}}
				}
			}
			if r.Header[0].Value != "own=1" {
				t.Errorf("%s: the application's cookie is gone: %v", name, r.Header)
			}
			return target, r
		}
		first, _ := request()
		for range 20 {
			now = now.Add(30 * time.Second)
			again, r := request()
			if again != first {
				t.Errorf("%s: bound to %v, sent to %v", name, first.Endpoint(), again.Endpoint())
			}
			if renewed := len(r.Header) > 1; renewed != (a.Idle > 0) {
				t.Errorf("%s: renewed: %v", name, renewed)
			}
		}
		if s := a.Read(&message.Request{Header: jar}, now); !b.Holds(s.Target) || b.Holds(s.Target+1) || b.Holds(0) {
			t.Errorf("%s: holds the wrong sessions", name)
		}
		now = now.Add(time.Hour)
		if ended := a.Read(&message.Request{Header: jar}, now).Target == 0; ended != (a.Absolute+a.Idle > 0) {
			t.Errorf("%s: ended: %v", name, ended)
		}
	}
}

func TestCookies(t *testing.T) {
	h := message.Header{{Name: "cookie", Value: "a=1; b=\"two\";c=3"}, {Name: "x", Value: "y"}, {Name: "cookie", Value: "d=4=4; e"}}
	for name, want := range map[string]string{"a": "1", "b": "two", "c": "3", "d": "4=4"} {
		if got, ok := upstream.Cookie(h, name); !ok || got != want {
			t.Errorf("cookie %s is %q, %v, want %q", name, got, ok, want)
		}
	}
	for _, name := range []string{"e", "f", ""} {
		if got, ok := upstream.Cookie(h, name); ok {
			t.Errorf("there is a cookie %q: %q", name, got)
		}
	}
	if got, want := upstream.SetCookie("s", "v", "", 0), "s=v; Path=/; HttpOnly; SameSite=Lax"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got, want := upstream.SetCookie("s", "v", "/shop", time.Minute), "s=v; Path=/shop; Max-Age=60; HttpOnly; SameSite=Lax"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func FuzzCookie(f *testing.F) {
	for _, s := range []string{"", "a", "a=", "=a", "a=1; a=2", ";;a=b;", "b=\"a=1\";a=\""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, v string) {
		got, ok := upstream.Cookie(message.Header{{Name: "cookie", Value: v}}, "a")
		if ok && !strings.Contains(v, "a="+got) && !strings.Contains(v, `a="`) {
			t.Errorf("%q has the cookie %q", v, got)
		}
		if !ok && strings.HasPrefix(v, "a=") {
			t.Errorf("%q has no cookie", v)
		}
	})
}

func FuzzSession(f *testing.F) {
	for _, s := range []string{"", "1.1.1", "ffffffffffffffff.sf.sg", "..", "1.2", "-1.-2.-3", "1.1.0"} {
		f.Add(s)
	}
	p := upstream.SessionPolicy{Absolute: time.Hour, Idle: time.Minute}
	f.Fuzz(func(t *testing.T, token string) {
		s := p.Read(token, someDay)
		if s.Target == 0 {
			return
		}
		if age := someDay.Sub(s.Issued); age >= time.Hour || s.Seen.Before(s.Issued) {
			t.Errorf("%q gives %+v", token, s)
		}
	})
}
