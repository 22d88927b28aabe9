package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// LabelAllowFaults on a namespace, with the value "true", lets FaultPolicies there
// have an effect.
const LabelAllowFaults = GroupName + "/allow-faults"

// The types of a HeaderMatch; empty is Exact.
const (
	MatchExact             = "Exact"
	MatchPrefix            = "Prefix"
	MatchRegularExpression = "RegularExpression"
	MatchPresent           = "Present"
)

// HeaderMatch is a condition on a header field of a request.
type HeaderMatch struct {
	Name gatewayv1.HTTPHeaderName `json:"name"`
	// Type is Exact, Prefix, RegularExpression (RE2, of the whole value) or Present.
	Type string `json:"type,omitempty"`
	// Value is not read by Present.
	Value string `json:"value,omitempty"`
}

// Share is a part of the requests: at most one of its fields, none is all.
type Share struct {
	// Percent from 0 to 100.
	Percent *int32 `json:"percent,omitempty"`
	// Fraction for what is finer; its denominator is 100 when absent.
	Fraction *gatewayv1.Fraction `json:"fraction,omitempty"`
}

// PolicyStatus says what became of a policy.
type PolicyStatus struct {
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}
