package source

import (
	"regexp"
	"slices"
	"strconv"
	"strings"

	security "istio.io/api/security/v1beta1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Fault is one part of an object that is not understood.
type Fault struct {
	// Field is its path, as spec.rules[0].from[1].source; empty for the whole.
	Field string
	// Message says what is wrong with it.
	Message string
}

// FaultsOf turns what Check found into faults.
func FaultsOf(errs field.ErrorList) []Fault {
	var faults []Fault
	for _, e := range errs {
		faults = append(faults, Fault{Field: e.Field, Message: e.ErrorBody()})
	}
	return faults
}

var rulePath = regexp.MustCompile(`^spec\.rules\[(\d+)\](?:\.(from|to|when)\b(?:\[(\d+)\])?)?`)

// RestrictAuthorization returns a policy that is at least as strict as ap would
// be if its faults were understood. A file with a mistake is refused and its
// author is told at once; a cluster's object is there all the same, and must
// not leave what it guards less guarded.
//
// A rule of an ALLOW policy with a fault allows nothing. In a DENY policy the
// faulty part of a rule counts as met. Where it is not known what the policy
// selects, that is its whole namespace. Without faults it returns ap.
func RestrictAuthorization(ap *securityv1.AuthorizationPolicy, faults []Fault) *securityv1.AuthorizationPolicy {
	if len(faults) == 0 {
		return ap
	}
	out := ap.DeepCopy()
	spec := &out.Spec
	var (
		rules       = map[int]map[string]bool{} // the faulty parts of each rule
		whens       = map[[2]int]bool{}
		wide, whole bool // the selection is not known; no rule is
	)
	for _, f := range faults {
		m := rulePath.FindStringSubmatch(f.Field)
		switch {
		case m != nil:
			i, _ := strconv.Atoi(m[1])
			part := m[2]
			if part == "when" && m[3] != "" {
				j, _ := strconv.Atoi(m[3])
				whens[[2]int{i, j}] = true
			}
			if rules[i] == nil {
				rules[i] = map[string]bool{}
			}
			rules[i][part] = true
		case within(f.Field, "spec.selector"):
			spec.Selector, wide = nil, true
		case within(f.Field, "spec.targetRef"), within(f.Field, "spec.targetRefs"):
			spec.TargetRef, spec.TargetRefs, wide = nil, nil, true
		case within(f.Field, "metadata.annotations"):
			delete(out.Annotations, AnnotationDryRun) // in earnest
		case within(f.Field, "spec.action"), f.Field == "", f.Field == "spec":
			spec.Action, whole = security.AuthorizationPolicy_DENY, true
		default:
			whole = true
		}
	}
	if spec.Action == security.AuthorizationPolicy_ALLOW {
		kept := make([]*security.Rule, 0, len(spec.Rules))
		for i, rule := range spec.Rules {
			if rules[i] == nil && !wide && !whole {
				kept = append(kept, rule)
			}
		}
		spec.Rules = kept
		return out
	}
	if whole {
		spec.Rules = []*security.Rule{{}}
		return out
	}
	for i, rule := range spec.Rules {
		for part := range rules[i] {
			switch part {
			case "from":
				rule.From = nil
			case "to":
				rule.To = nil
			case "when":
				n := -1
				rule.When = slices.DeleteFunc(rule.When, func(*security.Condition) bool { n++; return whens[[2]int{i, n}] })
			default:
				spec.Rules[i] = &security.Rule{}
			}
		}
	}
	return out
}

// RestrictPeer returns a PeerAuthentication that is at least as strict as pa
// would be if its faults were understood: STRICT on all ports. Without faults it
// returns pa.
func RestrictPeer(pa *securityv1.PeerAuthentication, faults []Fault) *securityv1.PeerAuthentication {
	if len(faults) == 0 {
		return pa
	}
	out := pa.DeepCopy()
	out.Spec.Mtls = &security.PeerAuthentication_MutualTLS{Mode: security.PeerAuthentication_MutualTLS_STRICT}
	out.Spec.PortLevelMtls = nil
	for _, f := range faults {
		if within(f.Field, "spec.selector") {
			out.Spec.Selector = nil
		}
	}
	return out
}

// RestrictRequest returns a RequestAuthentication that accepts no token by a rule
// that is not understood: such a rule is left without keys. Where it is not known
// what it selects, that is its whole namespace. Without faults it returns ra.
func RestrictRequest(ra *securityv1.RequestAuthentication, faults []Fault) *securityv1.RequestAuthentication {
	if len(faults) == 0 {
		return ra
	}
	out := ra.DeepCopy()
	for _, rule := range out.Spec.JwtRules {
		rule.Jwks, rule.JwksUri = "", ""
	}
	for _, f := range faults {
		switch {
		case within(f.Field, "spec.selector"):
			out.Spec.Selector = nil
		case within(f.Field, "spec.targetRef"), within(f.Field, "spec.targetRefs"):
			out.Spec.TargetRef, out.Spec.TargetRefs = nil, nil
		}
	}
	return out
}

// within reports whether path is that of root or of something below it.
func within(path, root string) bool {
	rest, ok := strings.CutPrefix(path, root)
	return ok && (rest == "" || rest[0] == '.' || rest[0] == '[')
}
