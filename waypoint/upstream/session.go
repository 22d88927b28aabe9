package upstream

import (
	"strconv"
	"strings"
	"time"

	"github.com/tulle-mesh/tulle/waypoint/message"
)

// Session is what a client keeps of the target that it is bound to. The zero value
// is none.
type Session struct {
	// Target is Options.Session.
	Target uint64
	// Issued is when it was bound, Seen when it came last; both in whole seconds.
	Issued, Seen time.Time
}

// SessionPolicy says how long sessions last. The zero value has no end.
type SessionPolicy struct {
	// Absolute is the time since the client was bound.
	Absolute time.Duration
	// Idle is the time since its last request.
	Idle time.Duration
}

// Token returns what binds a client to the target, for a cookie or a header. The
// session that the client came with goes on when it is of the same target. A token
// tells the endpoint's number, not its address; who changes it chooses among the
// endpoints that he may reach anyway.
func (t *Target) Token(was Session, now time.Time) string {
	issued := now
	if was.Target == t.hash {
		issued = was.Issued
	}
	b := make([]byte, 0, maxSessionToken)
	b = strconv.AppendUint(b, t.hash, 16)
	b = append(b, '.')
	b = strconv.AppendInt(b, issued.Unix(), 36)
	b = append(b, '.')
	b = strconv.AppendInt(b, now.Unix(), 36)
	return string(b)
}

// Read returns the session of a token, none when it has ended or is no token.
func (p SessionPolicy) Read(token string, now time.Time) Session {
	if len(token) > maxSessionToken {
		return Session{}
	}
	target, rest, ok := strings.Cut(token, ".")
	if !ok {
		return Session{}
	}
	first, last, ok := strings.Cut(rest, ".")
	if !ok {
		return Session{}
	}
	hash, err := strconv.ParseUint(target, 16, 64)
	if err != nil {
		return Session{}
	}
	issued, err := strconv.ParseInt(first, 36, 64)
	if err != nil {
		return Session{}
	}
	seen, err := strconv.ParseInt(last, 36, 64)
	if err != nil || issued < 0 || seen < issued {
		return Session{}
	}
	s := Session{Target: hash, Issued: time.Unix(issued, 0), Seen: time.Unix(seen, 0)}
	// A token from the future would never end; clocks of replicas differ by seconds.
	if s.Seen.Sub(now) > time.Minute ||
		p.Absolute > 0 && now.Sub(s.Issued) >= p.Absolute || p.Idle > 0 && now.Sub(s.Seen) >= p.Idle {
		return Session{}
	}
	return s
}

// Affinity binds clients to targets by what they carry.
type Affinity struct {
	// Cookie or Header is its name, a header's in lower case; one is empty.
	Cookie, Header string
	SessionPolicy
	// Permanent cookies outlive the browser's session: for Absolute.
	Permanent bool
}

// Read returns the session that a request carries, none when it has ended.
func (a *Affinity) Read(r *message.Request, now time.Time) Session {
	token := ""
	if a.Cookie != "" {
		token, _ = Cookie(r.Header, a.Cookie)
	} else {
		token = r.Header.Get(a.Header)
	}
	if token == "" {
		return Session{}
	}
	return a.SessionPolicy.Read(token, now)
}

// Write binds the client to the target that has answered, if it is not bound to it
// already. A session that ends when it is idle is renewed with every response. path is
// that of the cookie, "/" when empty.
func (a *Affinity) Write(r *message.Response, t *Target, was Session, path string, now time.Time) {
	if was.Target == t.hash && a.Idle == 0 {
		return
	}
	token := t.Token(was, now)
	if a.Cookie == "" {
		r.Header.Set(a.Header, token)
		return
	}
	var age time.Duration
	if a.Permanent {
		age = a.Absolute
		if was.Target == t.hash {
			age -= now.Sub(was.Issued)
		}
	}
	r.Header.Add("set-cookie", SetCookie(a.Cookie, token, path, age))
}

// Holds reports whether the target of a session is one of the backend's and takes
// part: of several backends that share requests by weight, a bound client keeps the
// one that holds its session.
func (b *Backend) Holds(session uint64) bool {
	return session != 0 && b.current().session(session) != nil
}

// Cookie returns the value of a request's cookie (RFC 6265, 4.2).
func Cookie(h message.Header, name string) (string, bool) {
	for i := range h {
		if h[i].Name != "cookie" {
			continue
		}
		for rest := h[i].Value; rest != ""; {
			var pair string
			pair, rest, _ = strings.Cut(rest, ";")
			if n, v, ok := strings.Cut(strings.Trim(pair, " \t"), "="); ok && n == name {
				return strings.Trim(v, `"`), true
			}
		}
	}
	return "", false
}

// SetCookie returns the value of a Set-Cookie field. The cookie lasts as long as the
// browser, or, when maxAge is not 0, so long.
func SetCookie(name, value, path string, maxAge time.Duration) string {
	if path == "" {
		path = "/"
	}
	out := name + "=" + value + "; Path=" + path
	if maxAge > 0 {
		out += "; Max-Age=" + strconv.FormatInt(int64((maxAge+time.Second-1)/time.Second), 10)
	}
	return out + "; HttpOnly; SameSite=Lax"
}
