package source

import (
	"encoding/json"
	"net/url"

	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// checkRequestAuthentication refuses rules by which no token could be checked.
func (c Checker) checkRequestAuthentication(ra *securityv1.RequestAuthentication) field.ErrorList {
	path, spec := field.NewPath("spec"), &ra.Spec
	errs := c.checkTargets(ra.Namespace, spec.TargetRef, spec.TargetRefs, path)
	errs = append(errs, checkSelector(spec.Selector, path.Child("selector"))...)
	if (len(spec.TargetRefs) > 0 || spec.TargetRef != nil) && spec.Selector != nil && !c.Served {
		errs = append(errs, field.Forbidden(path.Child("selector"), "it selects workloads or is bound to targets, not both"))
	}
	rules := path.Child("jwtRules")
	if n := len(spec.JwtRules); n > maxPolicyRules {
		errs = append(errs, field.TooMany(rules, n, maxPolicyRules))
	}
	for i, rule := range spec.JwtRules {
		path := rules.Index(i)
		if rule.GetIssuer() == "" {
			errs = append(errs, field.Required(path.Child("issuer"), ""))
		}
		uri, keys := rule.GetJwksUri(), rule.GetJwks()
		switch {
		case uri == "" && keys == "":
			// The issuer's own metadata names its keys (OpenID Connect Discovery).
			if u, err := url.Parse(rule.GetIssuer()); err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
				errs = append(errs, field.Required(path.Child("jwksUri"), "jwksUri or jwks says by which keys tokens are checked, unless the issuer is a URL at which they can be asked for"))
			}
		case uri != "" && keys != "":
			errs = append(errs, field.Forbidden(path.Child("jwks"), "jwksUri and jwks exclude each other"))
		case uri != "":
			if u, err := url.Parse(uri); err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
				errs = append(errs, field.Invalid(path.Child("jwksUri"), uri, "must be an http or https URL"))
			}
		case !json.Valid([]byte(keys)):
			errs = append(errs, field.Invalid(path.Child("jwks"), field.OmitValueType{}, "must be a JSON Web Key Set (RFC 7517)"))
		}
		for j, h := range rule.GetFromHeaders() {
			errs = append(errs, checkHeaderName(h.GetName(), path.Child("fromHeaders").Index(j).Child("name"))...)
		}
		if h := rule.GetOutputPayloadToHeader(); h != "" {
			errs = append(errs, checkHeaderName(h, path.Child("outputPayloadToHeader"))...)
		}
		for j, h := range rule.GetOutputClaimToHeaders() {
			path := path.Child("outputClaimToHeaders").Index(j)
			errs = append(errs, checkHeaderName(h.GetHeader(), path.Child("header"))...)
			if h.GetClaim() == "" {
				errs = append(errs, field.Required(path.Child("claim"), ""))
			}
		}
		for j, p := range rule.GetFromParams() {
			errs = append(errs, checkNotEmpty(p, path.Child("fromParams").Index(j))...)
		}
		for j, p := range rule.GetFromCookies() {
			errs = append(errs, checkNotEmpty(p, path.Child("fromCookies").Index(j))...)
		}
	}
	return errs
}
