package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// FaultPolicy has waypoints delay or end some requests, to see what clients make of
// it. It has an effect only in namespaces with the label [LabelAllowFaults].
type FaultPolicy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   FaultPolicySpec `json:"spec"`
	Status PolicyStatus    `json:"status,omitempty"`
}

// FaultPolicySpec needs a delay, an abort, or both.
type FaultPolicySpec struct {
	// TargetRefs are Services, ServiceEntries, HTTPRoutes or GRPCRoutes; sectionName is
	// a rule of a route, by name.
	TargetRefs []TargetRef `json:"targetRefs"`
	// Headers that a request must have, all of them.
	Headers []HeaderMatch `json:"headers,omitempty"`
	Delay   *FaultDelay   `json:"delay,omitempty"`
	Abort   *FaultAbort   `json:"abort,omitempty"`
}

// FaultDelay holds requests up.
type FaultDelay struct {
	Share    `json:",inline"`
	Duration gatewayv1.Duration `json:"duration"`
}

// FaultAbort ends requests in exactly one way.
type FaultAbort struct {
	Share `json:",inline"`
	// HTTPStatus from 200 to 599.
	HTTPStatus *int32 `json:"httpStatus,omitempty"`
	// GRPCStatus from 0 to 16; a request that is not gRPC gets the HTTP status that
	// stands for it.
	GRPCStatus *int32 `json:"grpcStatus,omitempty"`
	// Reset breaks the request off without an answer.
	Reset bool `json:"reset,omitempty"`
}
