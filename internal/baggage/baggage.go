package baggage

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// Baggage describes one workload. Empty fields are unknown.
type Baggage struct {
	Cluster   string
	Namespace string
	// WorkloadKind is one of deployment, cronjob, pod and job. A name of another
	// kind is not written.
	WorkloadKind   string
	WorkloadName   string
	ServiceName    string
	ServiceVersion string
	Region         string
	Zone           string
}

const (
	keyCluster   = "k8s.cluster.name"
	keyNamespace = "k8s.namespace.name"
	keyService   = "service.name"
	keyVersion   = "service.version"
	keyRegion    = "cloud.region"
	keyZone      = "cloud.availability_zone"
)

// kindKey returns the key of a workload's name, empty for an unknown kind.
func kindKey(kind string) string {
	switch kind {
	case "deployment":
		return "k8s.deployment.name"
	case "cronjob":
		return "k8s.cronjob.name"
	case "pod":
		return "k8s.pod.name"
	case "job":
		return "k8s.job.name"
	default:
		return ""
	}
}

// String returns the header's value, without the parts that are empty. Bytes
// that a header cannot carry are percent-encoded, so a value never ends its
// member or the header.
func (b Baggage) String() string {
	var out strings.Builder
	out.Grow(256)
	member := func(key, value string) {
		if key == "" || value == "" {
			return
		}
		if out.Len() > 0 {
			out.WriteByte(',')
		}
		out.WriteString(key)
		out.WriteByte('=')
		encode(&out, value)
	}
	member(keyCluster, b.Cluster)
	member(keyNamespace, b.Namespace)
	member(kindKey(b.WorkloadKind), b.WorkloadName)
	member(keyService, b.ServiceName)
	member(keyVersion, b.ServiceVersion)
	member(keyRegion, b.Region)
	member(keyZone, b.Zone)
	return out.String()
}

// Parse reads a header's value. Members with other keys are ignored, and so are
// properties; the first of several members with one key counts. The error says
// which member is malformed or which limit is exceeded; the Baggage is then
// zero. An empty header is a zero Baggage.
func Parse(header string) (Baggage, error) {
	var b Baggage
	if len(header) > maxBytes {
		return Baggage{}, fmt.Errorf("baggage: %d bytes, more than %d", len(header), maxBytes)
	}
	rest := header
	for n := 1; rest != ""; n++ {
		if n > maxMembers {
			return Baggage{}, fmt.Errorf("baggage: more than %d members", maxMembers)
		}
		var member string
		member, rest, _ = strings.Cut(rest, ",")
		if err := b.member(member); err != nil {
			return Baggage{}, fmt.Errorf("baggage: member %d: %w", n, err)
		}
	}
	return b, nil
}

func (b *Baggage) member(s string) error {
	s, _, _ = strings.Cut(s, ";")
	key, value, ok := strings.Cut(s, "=")
	key, value = trim(key), trim(value)
	if !ok || key == "" {
		if trim(s) == "" {
			return nil // an empty member, as some writers leave behind
		}
		return fmt.Errorf("%q is not key=value", clip(s))
	}
	field := b.field(key)
	if field == nil {
		return nil
	}
	decoded, err := decode(value)
	if err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	if *field != "" || decoded == "" {
		return nil
	}
	*field = decoded
	if kind := kindOf(key); kind != "" {
		b.WorkloadKind = kind
	}
	return nil
}

// field returns where a key's value goes, nil for a key that is not ours.
func (b *Baggage) field(key string) *string {
	switch key {
	case keyCluster:
		return &b.Cluster
	case keyNamespace:
		return &b.Namespace
	case keyService:
		return &b.ServiceName
	case keyVersion:
		return &b.ServiceVersion
	case keyRegion:
		return &b.Region
	case keyZone:
		return &b.Zone
	}
	if kindOf(key) != "" {
		return &b.WorkloadName
	}
	return nil
}

func kindOf(key string) string {
	kind, ok := strings.CutPrefix(key, "k8s.")
	if !ok {
		return ""
	}
	kind, ok = strings.CutSuffix(kind, ".name")
	if !ok || kindKey(kind) == "" {
		return ""
	}
	return kind
}

// trim removes optional white space as HTTP means it (RFC 9110 section 5.6.3).
func trim(s string) string { return strings.Trim(s, " \t") }

// isOctet reports a byte that W3C Baggage allows in a value as it is, without
// the percent sign, which always begins an encoded byte.
func isOctet(c byte) bool {
	return c > 0x20 && c < 0x7f && c != '"' && c != ',' && c != ';' && c != '\\' && c != '%'
}

const hexDigits = "0123456789ABCDEF"

func encode(out *strings.Builder, s string) {
	for i := range len(s) {
		if c := s[i]; isOctet(c) {
			out.WriteByte(c)
		} else {
			out.WriteByte('%')
			out.WriteByte(hexDigits[c>>4])
			out.WriteByte(hexDigits[c&15])
		}
	}
}

func decode(s string) (string, error) {
	plain := true
	for i := range len(s) {
		if c := s[i]; c == '%' {
			plain = false
		} else if c < 0x20 || c == 0x7f {
			return "", fmt.Errorf("control character %#x", c)
		}
	}
	if !plain {
		out := make([]byte, 0, len(s))
		for i := 0; i < len(s); i++ {
			if s[i] != '%' {
				out = append(out, s[i])
				continue
			}
			if i+2 >= len(s) || unhex(s[i+1]) < 0 || unhex(s[i+2]) < 0 {
				return "", fmt.Errorf("%q does not begin a percent-encoded byte", clip(s[i:]))
			}
			out = append(out, byte(unhex(s[i+1])<<4|unhex(s[i+2])))
			i += 2
		}
		s = string(out)
	}
	switch {
	case len(s) > maxValueBytes:
		return "", fmt.Errorf("%d bytes, more than %d", len(s), maxValueBytes)
	case !utf8.ValidString(s):
		return "", fmt.Errorf("%q is not UTF-8", clip(s))
	}
	return s, nil
}

func unhex(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	default:
		return -1
	}
}

// clip shortens what a peer sent for use in an error.
func clip(s string) string {
	const most = 64
	if len(s) <= most {
		return s
	}
	return s[:most] + "…"
}
