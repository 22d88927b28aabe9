package source

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	security "istio.io/api/security/v1beta1"
	typev1beta1 "istio.io/api/type/v1beta1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/tulle-mesh/tulle/internal/cel"
)

// checkAuthorizationPolicy leaves kinds of policies that are known and not
// supported to translate when the policy is served, and those that only waypoints
// enforce as they are written when the policy is bound to one.
func (c Checker) checkAuthorizationPolicy(ap *securityv1.AuthorizationPolicy) field.ErrorList {
	var errs field.ErrorList
	served := c.Served
	path, spec := field.NewPath("spec"), &ap.Spec
	atWaypoint := len(spec.TargetRefs) > 0 || spec.TargetRef != nil
	switch spec.Action {
	case security.AuthorizationPolicy_ALLOW, security.AuthorizationPolicy_DENY:
	case security.AuthorizationPolicy_CUSTOM, security.AuthorizationPolicy_AUDIT:
		if served || atWaypoint {
			break
		}
		fallthrough
	default:
		errs = append(errs, field.NotSupported(path.Child("action"), spec.Action.String(), []string{"ALLOW", "DENY"}))
	}
	if spec.GetActionDetail() != nil && !served && spec.Action != security.AuthorizationPolicy_CUSTOM {
		errs = append(errs, field.Forbidden(path.Child("provider"), "only action CUSTOM has a provider"))
	}
	errs = append(errs, c.checkTargets(ap.Namespace, spec.TargetRef, spec.TargetRefs, path)...)
	if atWaypoint && spec.Selector != nil && !served {
		errs = append(errs, field.Forbidden(path.Child("selector"), "a policy selects workloads or is bound to targets, not both"))
	}
	errs = append(errs, checkSelector(spec.Selector, path.Child("selector"))...)
	if spec.Action == security.AuthorizationPolicy_DENY && len(spec.Rules) == 0 && !served {
		errs = append(errs, field.Required(path.Child("rules"), "DENY without rules denies nothing; rules: [{}] denies everything"))
	}
	if n := len(spec.Rules); n > maxPolicyRules {
		errs = append(errs, field.TooMany(path.Child("rules"), n, maxPolicyRules))
	}
	for i, rule := range spec.Rules {
		errs = append(errs, checkRule(rule, path.Child("rules").Index(i))...)
	}
	if v, ok := ap.Annotations[AnnotationDryRun]; ok {
		if _, err := strconv.ParseBool(v); err != nil {
			errs = append(errs, field.NotSupported(field.NewPath("metadata", "annotations").Key(AnnotationDryRun), v, []string{"true", "false"}))
		}
	}
	return errs
}

// targetKinds are the kinds that a policy can be bound to, by their group.
var targetKinds = map[string]string{
	"Service": "", "ServiceEntry": "networking.istio.io", "Gateway": "gateway.networking.k8s.io", "GatewayClass": "gateway.networking.k8s.io",
}

// checkTargets refuses targets of which it is not known what they guard.
func (c Checker) checkTargets(namespace string, one *typev1beta1.PolicyTargetReference, refs []*typev1beta1.PolicyTargetReference, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	check := func(ref *typev1beta1.PolicyTargetReference, path *field.Path) {
		group, ok := targetKinds[ref.GetKind()]
		switch {
		case !ok:
			errs = append(errs, field.NotSupported(path.Child("kind"), ref.GetKind(), slices.Sorted(maps.Keys(targetKinds))))
		case ref.GetGroup() != group && !(group == "" && ref.GetGroup() == "core"):
			errs = append(errs, field.Invalid(path.Child("group"), ref.GetGroup(), "the group of a "+ref.GetKind()+" is "+strconv.Quote(group)))
		case ref.GetName() == "":
			errs = append(errs, field.Required(path.Child("name"), ""))
		case ref.GetKind() == "GatewayClass" && namespace != c.RootNamespace:
			errs = append(errs, field.Invalid(path.Child("kind"), ref.GetKind(), "only policies in "+c.RootNamespace+" can be bound to a GatewayClass, for it reaches all namespaces"))
		case ref.GetNamespace() != "" && ref.GetNamespace() != namespace:
			errs = append(errs, field.Invalid(path.Child("namespace"), ref.GetNamespace(), "must be the policy's own namespace"))
		}
	}
	for i, ref := range refs {
		check(ref, path.Child("targetRefs").Index(i))
	}
	if one != nil {
		check(one, path.Child("targetRef"))
	}
	return errs
}

func checkSelector(sel *typev1beta1.WorkloadSelector, path *field.Path) field.ErrorList {
	errs := checkLabelMap(sel.GetMatchLabels(), path.Child("matchLabels"))
	for key, value := range sel.GetMatchLabels() {
		if strings.Contains(value, "*") {
			errs = append(errs, field.Invalid(path.Child("matchLabels").Key(key), value, "wildcards are not supported in selectors"))
		}
	}
	return errs
}

func checkRule(rule *security.Rule, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for _, part := range []struct {
		name string
		n    int
	}{{"from", len(rule.GetFrom())}, {"to", len(rule.GetTo())}, {"when", len(rule.GetWhen())}} {
		if part.n > maxPolicyRules {
			errs = append(errs, field.TooMany(path.Child(part.name), part.n, maxPolicyRules))
		}
	}
	for i, from := range rule.GetFrom() {
		errs = append(errs, checkSource(from.GetSource(), path.Child("from").Index(i).Child("source"))...)
	}
	for i, to := range rule.GetTo() {
		errs = append(errs, checkOperation(to.GetOperation(), path.Child("to").Index(i).Child("operation"))...)
	}
	for i, when := range rule.GetWhen() {
		errs = append(errs, checkCondition(when, path.Child("when").Index(i))...)
	}
	return errs
}

// valueList is one list of values of a policy and the check for each.
type valueList struct {
	name   string
	values []string
	check  func(string, *field.Path) field.ErrorList
}

// checkLists checks every value and requires one list at least to have any,
// because a condition without values would match everything.
func checkLists(path *field.Path, lists ...valueList) field.ErrorList {
	var errs field.ErrorList
	total := 0
	for _, l := range lists {
		total += len(l.values)
		if len(l.values) > maxPolicyValues {
			errs = append(errs, field.TooMany(path.Child(l.name), len(l.values), maxPolicyValues))
			continue
		}
		for i, v := range l.values {
			errs = append(errs, l.check(v, path.Child(l.name).Index(i))...)
		}
	}
	if total == 0 {
		errs = append(errs, field.Required(path, "needs a condition; without one it would match everything"))
	}
	return errs
}

func checkSource(s *security.Source, path *field.Path) field.ErrorList {
	errs := checkLists(path,
		valueList{"principals", s.GetPrincipals(), checkPrincipal},
		valueList{"notPrincipals", s.GetNotPrincipals(), checkPrincipal},
		valueList{"requestPrincipals", s.GetRequestPrincipals(), checkNotEmpty},
		valueList{"notRequestPrincipals", s.GetNotRequestPrincipals(), checkNotEmpty},
		valueList{"namespaces", s.GetNamespaces(), checkNamespacePattern},
		valueList{"notNamespaces", s.GetNotNamespaces(), checkNamespacePattern},
		valueList{"serviceAccounts", s.GetServiceAccounts(), checkServiceAccountRef},
		valueList{"notServiceAccounts", s.GetNotServiceAccounts(), checkServiceAccountRef},
		valueList{"ipBlocks", s.GetIpBlocks(), checkBlock},
		valueList{"notIpBlocks", s.GetNotIpBlocks(), checkBlock},
		valueList{"remoteIpBlocks", s.GetRemoteIpBlocks(), checkBlock},
		valueList{"notRemoteIpBlocks", s.GetNotRemoteIpBlocks(), checkBlock},
	)
	if len(s.GetServiceAccounts())+len(s.GetNotServiceAccounts()) > 0 &&
		len(s.GetPrincipals())+len(s.GetNotPrincipals())+len(s.GetNamespaces())+len(s.GetNotNamespaces()) > 0 {
		errs = append(errs, field.Forbidden(path.Child("serviceAccounts"), "cannot stand beside principals or namespaces in one source"))
	}
	return errs
}

func checkOperation(o *security.Operation, path *field.Path) field.ErrorList {
	return checkLists(path,
		valueList{"hosts", o.GetHosts(), checkNotEmpty},
		valueList{"notHosts", o.GetNotHosts(), checkNotEmpty},
		valueList{"ports", o.GetPorts(), checkPortText},
		valueList{"notPorts", o.GetNotPorts(), checkPortText},
		valueList{"methods", o.GetMethods(), checkNotEmpty},
		valueList{"notMethods", o.GetNotMethods(), checkNotEmpty},
		valueList{"paths", o.GetPaths(), checkNotEmpty},
		valueList{"notPaths", o.GetNotPaths(), checkNotEmpty},
	)
}

// conditions maps the keys of when to the check of their values.
var conditions = map[string]func(string, *field.Path) field.ErrorList{
	"source.ip":              checkBlock,
	"source.namespace":       checkNamespacePattern,
	"source.principal":       checkPrincipal,
	"source.serviceAccount":  checkServiceAccountRef,
	"destination.ip":         checkBlock,
	"destination.port":       checkPortText,
	"remote.ip":              checkBlock,
	"request.auth.principal": checkNotEmpty,
	"request.auth.audiences": checkNotEmpty,
	"request.auth.presenter": checkNotEmpty,
	"connection.sni":         checkNotEmpty,
	"policy.tulle.dev/cel":   checkExpression,
}

// conditionPrefixes are keys that carry a name in brackets.
var conditionPrefixes = []string{"request.headers[", "request.auth.claims[", "experimental.envoy.filters."}

func checkCondition(c *security.Condition, path *field.Path) field.ErrorList {
	check, ok := conditions[c.GetKey()]
	if !ok {
		named := slices.ContainsFunc(conditionPrefixes, func(p string) bool {
			return strings.HasPrefix(c.GetKey(), p) && len(c.GetKey()) > len(p)+1 && (!strings.HasSuffix(p, "[") || strings.HasSuffix(c.GetKey(), "]"))
		})
		if !named {
			return field.ErrorList{field.Invalid(path.Child("key"), c.GetKey(), "no such condition")}
		}
		check = checkNotEmpty
	}
	return checkLists(path, valueList{"values", c.GetValues(), check}, valueList{"notValues", c.GetNotValues(), check})
}

// checkExpression takes a condition in CEL.
func checkExpression(s string, path *field.Path) field.ErrorList {
	if _, err := cel.Conditions.Compile(s); err != nil {
		return field.ErrorList{field.Invalid(path, s, "is no condition in CEL: "+err.Error())}
	}
	return nil
}

func checkNotEmpty(s string, path *field.Path) field.ErrorList {
	if s == "" {
		return field.ErrorList{field.Required(path, "must not be empty")}
	}
	return nil
}

func checkPortText(s string, path *field.Path) field.ErrorList {
	port, err := strconv.ParseUint(s, 10, 16)
	if err != nil || port == 0 || strconv.FormatUint(port, 10) != s {
		return field.ErrorList{field.Invalid(path, s, "must be a port number between 1 and 65535")}
	}
	return nil
}

// checkPattern takes "*", a prefix ending in one star and a suffix starting
// with one, and hands exact values on.
func checkPattern(s string, path *field.Path, exact func(string) string) field.ErrorList {
	stars := strings.Count(s, "*")
	switch {
	case s == "":
		return field.ErrorList{field.Required(path, "must not be empty")}
	case stars == 0:
		if msg := exact(s); msg != "" {
			return field.ErrorList{field.Invalid(path, s, msg)}
		}
	case stars > 1, !strings.HasPrefix(s, "*") && !strings.HasSuffix(s, "*"):
		return field.ErrorList{field.Invalid(path, s, "a star stands for the rest at the start or the end, once")}
	}
	return nil
}

func checkPrincipal(s string, path *field.Path) field.ErrorList {
	if strings.HasPrefix(s, "spiffe://") {
		return field.ErrorList{field.Invalid(path, s, "is written without spiffe://, as cluster.local/ns/shop/sa/api")}
	}
	return checkPattern(s, path, func(s string) string {
		// Only identities of this shape exist in the mesh; any other exact value
		// could never match, and a DENY with it would deny nothing.
		const want = "must be trust-domain/ns/NAMESPACE/sa/SERVICE-ACCOUNT"
		if _, err := spiffeid.FromString("spiffe://" + s); err != nil {
			return want + ": " + err.Error()
		}
		if parts := strings.Split(s, "/"); len(parts) != 5 || parts[1] != "ns" || parts[3] != "sa" {
			return want
		}
		return ""
	})
}

func checkNamespacePattern(s string, path *field.Path) field.ErrorList {
	return checkPattern(s, path, func(s string) string {
		return strings.Join(validation.IsDNS1123Label(s), "; ")
	})
}

func checkServiceAccountRef(s string, path *field.Path) field.ErrorList {
	ns, name, ok := strings.Cut(s, "/")
	if !ok {
		ns, name = "default", s
	}
	if len(validation.IsDNS1123Label(ns)) > 0 || len(validation.IsDNS1123Subdomain(name)) > 0 {
		return field.ErrorList{field.Invalid(path, s, "must be a service account's name or namespace/name, without wildcards")}
	}
	return nil
}

func checkPeerAuthentication(pa *securityv1.PeerAuthentication) field.ErrorList {
	path, spec := field.NewPath("spec"), &pa.Spec
	errs := checkSelector(spec.Selector, path.Child("selector"))
	if len(spec.PortLevelMtls) > 0 && len(spec.Selector.GetMatchLabels()) == 0 {
		errs = append(errs, field.Forbidden(path.Child("portLevelMtls"), "needs a selector: ports belong to workloads"))
	}
	for port, mtls := range spec.PortLevelMtls {
		path := path.Child("portLevelMtls").Key(strconv.FormatUint(uint64(port), 10))
		errs = append(errs, checkPort(int64(port), path)...)
		if mtls == nil {
			errs = append(errs, field.Required(path, "needs a mode"))
		}
	}
	return errs
}
