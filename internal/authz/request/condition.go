package request

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/tulle-mesh/tulle/internal/authz"
	"github.com/tulle-mesh/tulle/internal/cel"
)

// field is the attribute that a condition looks at.
type field uint8

// The order is the order of evaluation: cheap comparisons first.
const (
	fieldPort field = iota
	fieldNamespace
	fieldAccount
	fieldTrustDomain
	fieldPrincipal
	fieldSourceIP
	fieldDestinationIP
	fieldRemoteIP
	fieldServerName
	fieldMethod
	fieldHost
	fieldPath
	fieldHeader
	fieldPresenter
	fieldAudience
	fieldRequestPrincipal
	fieldClaim
	fieldExpression
)

// condition is one list of values. Only what belongs to its field is used.
type condition struct {
	field field
	not   bool
	// wide conditions take every doubt as a match, narrow ones none.
	wide bool
	// doubt says that one of the values was not understood.
	doubt bool
	// withPort says that a value for hosts may name a port.
	withPort bool

	ports    []uint16 // sorted
	ranges   authz.Ranges
	patterns patterns
	accounts []account
	subjects []subjectPattern
	// name of a header field, in lower case; names of nested claims.
	name  string
	names []string
	// programs are expressions.
	programs []*cel.Program
}

type account struct{ namespace, name string }

// restricts tells that the condition belongs to a policy in which it holds in doubt.
func (c *condition) restricts() bool { return c.wide != c.not }

func (c *condition) holds(in *input) bool {
	if !c.known(in) {
		return c.restricts()
	}
	return (c.doubt && c.wide || c.matches(in)) != c.not
}

// known reports whether the attribute can be judged at all.
func (c *condition) known(in *input) bool {
	switch c.field {
	case fieldDestinationIP:
		return in.destination.IsValid()
	case fieldRemoteIP:
		return in.remote.IsValid()
	case fieldMethod, fieldHeader:
		return in.Request != nil
	case fieldHost:
		// HTTP/1.0 without a Host gets whatever the application takes for its default.
		return in.Request != nil && in.Request.Authority != ""
	case fieldPath:
		// CONNECT has no path, and what follows it may be anything.
		return in.Request != nil && in.path != ""
	case fieldPresenter, fieldAudience, fieldRequestPrincipal, fieldClaim:
		return in.Request != nil && !in.unchecked
	default:
		return true
	}
}

// matches reports whether one of the values that were understood fits.
func (c *condition) matches(in *input) bool {
	switch c.field {
	case fieldPort:
		_, ok := slices.BinarySearch(c.ports, in.Destination.Port())
		return ok
	case fieldSourceIP:
		return c.ranges.Contains(in.source)
	case fieldRemoteIP:
		return c.ranges.Contains(in.remote) || c.wide && c.forwarded(in)
	case fieldDestinationIP:
		return c.ranges.Contains(in.destination)
	case fieldNamespace:
		return c.text(in.Peer.namespace)
	case fieldTrustDomain:
		return c.text(in.Peer.trustDomain)
	case fieldPrincipal:
		return c.text(in.Peer.principal)
	case fieldAccount:
		return c.account(in.Peer)
	case fieldServerName:
		return c.text(in.ServerName)
	case fieldMethod:
		return c.method(in.Request.Method)
	case fieldHost:
		return c.host(in)
	case fieldPath:
		return c.patterns.match(in.path, c.wide)
	case fieldHeader:
		return c.header(in)
	case fieldRequestPrincipal:
		return c.subject(in.subject())
	case fieldAudience:
		return c.claim(in.Request.Token, aud)
	case fieldPresenter:
		return c.claim(in.Request.Token, azp)
	case fieldClaim:
		return c.claim(in.Request.Token, c.names)
	case fieldExpression:
		return c.expression(in)
	default:
		return false
	}
}

// forwarded reports whether an address that the request is said to come from fits, or is
// none: who says so may not be believed, and is not by conditions that grant.
func (c *condition) forwarded(in *input) bool {
	if in.Request == nil || in.Request.Fields == nil {
		return false
	}
	for v, next, ok := in.Request.Fields.Next("x-forwarded-for", 0); ok; v, next, ok = in.Request.Fields.Next("x-forwarded-for", next) {
		for element := range strings.SplitSeq(v, ",") {
			element = strings.Trim(element, " \t")
			a, err := netip.ParseAddr(element)
			if err != nil {
				at, err := netip.ParseAddrPort(element)
				if err != nil {
					return true
				}
				a = at.Addr()
			}
			if c.ranges.Contains(a.Unmap().WithZone("")) {
				return true
			}
		}
	}
	return false
}

// text matches an attribute that is absent when it is empty.
func (c *condition) text(v string) bool { return v != "" && c.patterns.match(v, c.wide) }

func (c *condition) account(p Peer) bool {
	for i := range c.accounts {
		if c.accounts[i].name == p.account && c.accounts[i].namespace == p.namespace {
			return true
		}
	}
	return false
}

// method compares as it stands and, being wide, as an application may that does not
// care for case.
func (c *condition) method(m string) bool {
	if c.patterns.match(m, c.wide) {
		return true
	}
	if !c.wide {
		return false
	}
	upper := strings.ToUpper(m)
	return upper != m && c.patterns.match(upper, true)
}

// host compares the authority as it stands and, being wide, without its port and
// without the dot of a name that is fully qualified; one without a port also with
// the ports that it may mean.
func (c *condition) host(in *input) bool {
	authority := in.Request.Authority
	if c.patterns.match(authority, c.wide) {
		return true
	}
	if !c.wide {
		return false
	}
	host, port := authority, ""
	if i := strings.LastIndexByte(authority, ':'); i > strings.LastIndexByte(authority, ']') {
		host, port = authority[:i], authority[i:]
	}
	name := strings.TrimSuffix(host, ".")
	if c.patterns.match(host, true) || c.patterns.match(name, true) {
		return true
	}
	switch {
	case !c.withPort:
		return false
	case port != "":
		return c.patterns.match(name+port, true)
	}
	implied := ":80"
	if in.Request.Scheme == "https" {
		implied = ":443"
	}
	return c.patterns.match(name+implied, true) ||
		c.patterns.match(name+":"+strconv.Itoa(int(in.Destination.Port())), true)
}

// header compares all lines of the field joined by commas and, being wide, each of
// them. What HTTP/2 carries beside the fields has its name with a colon; host and
// upgrade are what HTTP/1.1 calls two of those.
func (c *condition) header(in *input) bool {
	r := in.Request
	switch c.name {
	case ":authority", "host":
		return r.Authority != "" && c.host(in)
	case ":method":
		return c.method(r.Method)
	case ":scheme":
		return c.text(r.Scheme)
	case ":protocol", "upgrade":
		return c.text(r.Protocol)
	case ":path":
		if c.wide && c.patterns.match(in.path, true) {
			return true
		}
		if r.HasQuery {
			return c.patterns.match(in.path+"?"+r.Query, c.wide)
		}
		return c.text(in.path)
	}
	if r.Fields == nil {
		return false
	}
	v, next, ok := r.Fields.Next(c.name, 0)
	if !ok {
		return false
	}
	if c.wide && c.patterns.match(v, true) {
		return true
	}
	joined, lines := v, 1
	for {
		if v, next, ok = r.Fields.Next(c.name, next); !ok {
			break
		}
		if c.wide && c.patterns.match(v, true) {
			return true
		}
		joined += "," + v
		lines++
	}
	// A single line was compared already, were it wide.
	return (!c.wide || lines > 1) && c.patterns.match(joined, c.wide)
}

// claim compares the values of one claim.
func (c *condition) claim(t Token, names []string) bool {
	if t == nil {
		return false
	}
	claim, ok := t.Claim(names)
	if !ok {
		return false
	}
	for _, v := range claim.Strings {
		if c.patterns.match(v, c.wide) {
			return true
		}
	}
	if !c.wide {
		return false
	}
	for _, v := range claim.Others {
		if c.patterns.match(v, true) {
			return true
		}
	}
	// An object is there, whatever is in it.
	return c.patterns.present
}

// subjectPattern is one value of requestPrincipals. Istio cuts it at its last slash,
// so that an issuer may be a URL, and compares issuer and subject apart.
type subjectPattern struct {
	issuer, subject part
}

// part compares one of the two.
type part struct {
	text string
	kind partKind
}

type partKind uint8

const (
	partExact partKind = iota
	partPrefix
	partSuffix
	partAny // but not empty
)

func (p part) match(v string) bool {
	switch p.kind {
	case partAny:
		return v != ""
	case partPrefix:
		return v != "" && strings.HasPrefix(v, p.text)
	case partSuffix:
		return v != "" && strings.HasSuffix(v, p.text)
	default:
		return v == p.text
	}
}

func parseSubject(value string) subjectPattern {
	exact := func(s string) part { return part{text: s} }
	anything := part{kind: partAny}
	i := strings.LastIndexByte(value, '/')
	issuer, subject := value, ""
	if i >= 0 {
		issuer, subject = value[:i], value[i+1:]
	}
	switch {
	case value == "*":
		return subjectPattern{anything, anything}
	case strings.HasPrefix(value, "*") && i < 0:
		return subjectPattern{anything, part{value[1:], partSuffix}}
	case issuer == "*":
		return subjectPattern{anything, exact(subject)}
	case strings.HasPrefix(value, "*"):
		return subjectPattern{part{issuer[1:], partSuffix}, exact(subject)}
	case strings.HasSuffix(value, "*") && i < 0:
		return subjectPattern{part{value[:len(value)-1], partPrefix}, anything}
	case subject == "*":
		return subjectPattern{exact(issuer), anything}
	case strings.HasSuffix(value, "*"):
		return subjectPattern{exact(issuer), part{subject[:len(subject)-1], partPrefix}}
	}
	return subjectPattern{exact(issuer), exact(subject)}
}

// subject compares issuer and subject apart and, being wide, what they make together,
// for a subject may have slashes too. A token that lacks one of them has no principal.
func (c *condition) subject(issuer, subject string) bool {
	if issuer == "" || subject == "" {
		return false
	}
	for i := range c.subjects {
		if c.subjects[i].issuer.match(issuer) && c.subjects[i].subject.match(subject) {
			return true
		}
	}
	return c.wide && c.patterns.match(issuer+"/"+subject, true)
}
