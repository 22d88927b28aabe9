package explain

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/tulle-mesh/tulle/internal/workload"
	"github.com/tulle-mesh/tulle/waypoint/message"
)

// HTTP is a request that a connection is for; the zero value asks about GET /.
type HTTP struct {
	Method, Path, Authority string
	// Headers are name:value.
	Headers []string
}

// given reports whether anything was said of the request.
func (r HTTP) given() bool {
	return r.Method != "" || r.Path != "" || r.Authority != "" || len(r.Headers) > 0
}

// Check returns what no client could send, by the flag that says it.
func (r HTTP) Check() error {
	_, err := r.message("")
	return err
}

// message is the request in the form in which waypoints judge it; host is that of a
// request that names none.
func (r HTTP) message(host string) (*message.Request, error) {
	out := &message.Request{Method: cmp.Or(r.Method, "GET"), Scheme: "http", Authority: host}
	if !isToken(out.Method) {
		return nil, fmt.Errorf("--method %q: must be a method, such as GET", r.Method)
	}
	target := cmp.Or(r.Path, "/")
	if target[0] != '/' {
		return nil, fmt.Errorf("--path %q: must begin with a slash", r.Path)
	}
	var err error
	if out.Path, out.Query, out.HasQuery, err = message.ParseTarget(target); err != nil {
		return nil, fmt.Errorf("--path %q: %w", r.Path, err)
	}
	if r.Authority != "" {
		if out.Authority, err = message.NormalizeAuthority(r.Authority); err != nil {
			return nil, fmt.Errorf("--authority %q: must be HOST or HOST:PORT: %w", r.Authority, err)
		}
	}
	for _, h := range r.Headers {
		name, value, found := strings.Cut(h, ":")
		name, value = strings.ToLower(strings.TrimSpace(name)), strings.TrimSpace(value)
		switch {
		case !found, !message.ValidName(name), !message.ValidValue(value):
			return nil, fmt.Errorf("--header %q: must be NAME:VALUE", h)
		case name == "host":
			return nil, fmt.Errorf("--header %q: --authority says the host of a request", h)
		}
		out.Header.Add(name, value)
	}
	return out, nil
}

// isToken reports whether s is a token (RFC 9110, 5.6.2).
func isToken(s string) bool {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f || strings.IndexByte(`"(),/:;<=>?@[\]{}`, c) >= 0 {
			return false
		}
	}
	return s != ""
}

// CheckClient returns what is wrong with a client as --from names it.
func CheckClient(from string) error {
	_, err := identityOf(from)
	return err
}

// identityOf reads NAMESPACE/ACCOUNT or a SPIFFE ID; empty is nobody.
func identityOf(from string) (spiffeid.ID, error) {
	var (
		id  spiffeid.ID
		err error
	)
	namespace, account, found := strings.Cut(from, "/")
	switch {
	case from == "":
		return id, nil
	case strings.Contains(from, "://"):
		id, err = spiffeid.FromString(from)
	case !found || namespace == "" || account == "":
		return id, fmt.Errorf("--from %q: must be NAMESPACE/SERVICEACCOUNT or a SPIFFE ID", from)
	default:
		id, err = workload.NewIdentity("", namespace, account)
	}
	if err != nil {
		return spiffeid.ID{}, fmt.Errorf("--from %q: must be NAMESPACE/SERVICEACCOUNT or a SPIFFE ID: %w", from, err)
	}
	return id, nil
}

// CheckService returns what is wrong with a service as --service names it: NAME,
// NAMESPACE/NAME or a hostname, with or without its namespace.
func CheckService(name string) error {
	parts := strings.Split(name, "/")
	wrong := len(parts) > 2
	for _, part := range parts {
		wrong = wrong || part == "" || strings.Trim(strings.ToLower(part), "abcdefghijklmnopqrstuvwxyz0123456789.-*") != ""
	}
	if wrong {
		return fmt.Errorf("--service %q: must be NAME, NAMESPACE/NAME or a hostname", name)
	}
	return nil
}
