package request

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Attributes is what is known of one request or, where Request is nil, of one
// connection that carries bytes.
type Attributes struct {
	// Source is the address of the client.
	Source netip.Addr
	// Remote is the address of who asked first, as far as trusted proxies tell: the
	// client where there are none. The zero value means that it is not known.
	Remote netip.Addr
	// Peer is the client's verified identity, zero when it showed none.
	Peer Peer
	// Destination is the address and port of the service that the client addressed,
	// never the tunnel's. The zero address means that it is not known.
	Destination netip.AddrPort
	// ServerName is the name that the client's TLS asks for, in lower case.
	ServerName string
	// Request is nil for bytes.
	Request *Request
}

// Request is the head of a request in normal form.
type Request struct {
	Method string
	// Scheme is "http" or "https".
	Scheme string
	// Authority is host[:port] in lower case, empty when the client sent none.
	Authority string
	// Path is in normal form, and Folded what a careless application may make of it;
	// they are equal for most requests. Both must pass. Path is empty in CONNECT.
	Path, Folded string
	// Query is what follows the "?", as sent.
	Query    string
	HasQuery bool
	// Protocol is what the client wants to change to, in lower case.
	Protocol string
	// Fields are those of the header, nil for none.
	Fields Fields
	// Token holds the claims of the verified token, nil without one.
	Token Token
}

// Fields looks up the header's fields. Names are in lower case.
type Fields interface {
	// Next returns the value of the first field of that name at or after index from,
	// and the index behind it; ok is false without one.
	Next(name string, from int) (value string, next int, ok bool)
	// Names calls yield with the name of each field, in any order, until it returns
	// false; of several of one name it may do so once or more often.
	Names(yield func(name string) bool)
}

// Token is a verified token.
type Token interface {
	// Claim returns the claim under the nested names, and whether there is any.
	Claim(names []string) (Claim, bool)
}

// Claim is one claim of a token.
type Claim struct {
	// Strings are the values of a claim that is a string or a list of strings; of a
	// list that holds other values too, only the strings. Claims that are lists of
	// words in one string are split.
	Strings []string
	// Others are the texts of values of other kinds: numbers, booleans, and the
	// string that was split. Only wide conditions look at them.
	Others []string
}

// Peer is a client's identity, prepared once for all requests of its connection. The
// zero Peer is a client that showed none.
type Peer struct {
	// principal is the identity without spiffe://.
	principal, trustDomain, namespace, account string
}

// NewPeer prepares an identity; the zero ID gives the zero Peer. The error is that
// of an identity that names no namespace and service account: its connection must
// be refused, for no policy could tell it from one without identity.
func NewPeer(id spiffeid.ID) (Peer, error) {
	if id.IsZero() {
		return Peer{}, nil
	}
	rest, ok := strings.CutPrefix(id.Path(), "/ns/")
	namespace, account, ok2 := strings.Cut(rest, "/sa/")
	if !ok || !ok2 || namespace == "" || account == "" || strings.Contains(namespace, "/") || strings.Contains(account, "/") {
		return Peer{}, fmt.Errorf("identity %s is not of the form spiffe://<trust domain>/ns/<namespace>/sa/<account>", id)
	}
	return Peer{
		principal:   strings.TrimPrefix(id.String(), "spiffe://"),
		trustDomain: id.TrustDomain().Name(),
		namespace:   namespace,
		account:     account,
	}, nil
}

// IsZero reports that the client showed no identity.
func (p Peer) IsZero() bool { return p.principal == "" }

// Principal returns the identity without spiffe://, as policies name it.
func (p Peer) Principal() string { return p.principal }

// Namespace returns the client's namespace.
func (p Peer) Namespace() string { return p.namespace }

// Account returns the client's service account.
func (p Peer) Account() string { return p.account }

// input is Attributes prepared for matching, once per decision.
type input struct {
	*Attributes
	source, remote, destination netip.Addr
	// path is the form that is being judged.
	path string
	// unchecked says that the request's token has not been looked at yet.
	unchecked bool
}

var (
	denySource = &Denial{Reason: "the connection has no source address"}
	denyPort   = &Denial{Reason: "the connection has no destination port"}
)

func prepare(a *Attributes) (input, *Denial) {
	in := input{
		Attributes:  a,
		source:      a.Source.Unmap().WithZone(""),
		remote:      a.Remote.Unmap().WithZone(""),
		destination: a.Destination.Addr().Unmap().WithZone(""),
	}
	if a.Request != nil {
		in.path = a.Request.Path
	}
	switch {
	case !in.source.IsValid():
		return in, denySource
	case a.Destination.Port() == 0:
		return in, denyPort
	}
	return in, nil
}

// refold turns to the other form of the path and reports whether there is one.
func (in *input) refold() bool {
	if in.Request == nil || in.Request.Folded == in.path {
		return false
	}
	in.path = in.Request.Folded
	return true
}

// iss and sub name a token's issuer and subject.
var (
	iss = []string{"iss"}
	sub = []string{"sub"}
	aud = []string{"aud"}
	azp = []string{"azp"}
)

// subject returns issuer and subject of the token, empty where it does not say.
func (in *input) subject() (issuer, subject string) {
	token := in.Request.Token
	if token == nil {
		return "", ""
	}
	return first(token, iss), first(token, sub)
}

func first(t Token, name []string) string {
	if c, _ := t.Claim(name); len(c.Strings) > 0 {
		return c.Strings[0]
	}
	return ""
}
