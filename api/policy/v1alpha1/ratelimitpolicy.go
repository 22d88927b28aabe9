package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// RateLimitPolicy bounds how many requests its targets take.
type RateLimitPolicy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   RateLimitPolicySpec `json:"spec"`
	Status PolicyStatus        `json:"status,omitempty"`
}

// RateLimitPolicySpec is what its author wrote.
type RateLimitPolicySpec struct {
	// TargetRefs are Namespace, Service, ServiceEntry, HTTPRoute, GRPCRoute or Gateway.
	TargetRefs []TargetRef `json:"targetRefs"`
	// Rules all hold: of those that refuse, the one that asks for the longest wait
	// answers.
	Rules []RateLimitRule `json:"rules"`
	// Backend counts; absent are leases.
	Backend *RateLimitBackend `json:"backend,omitempty"`
	// FailureMode of requests that could not be counted: Open (the default) passes
	// them, Closed answers 503.
	FailureMode *FailureMode `json:"failureMode,omitempty"`
	// Timeout of counting; absent is 50ms.
	Timeout *gatewayv1.Duration `json:"timeout,omitempty"`
	// Shadow decides and tells, and refuses nothing.
	Shadow bool `json:"shadow,omitempty"`
}

// FailureMode is what becomes of requests when a decision cannot be had.
type FailureMode string

// The failure modes.
const (
	FailOpen   FailureMode = "Open"
	FailClosed FailureMode = "Closed"
)

// RateLimitRule counts the requests that fit.
type RateLimitRule struct {
	// Name for logs, metrics and answers; absent is the rule's index.
	Name *string `json:"name,omitempty"`
	// Match: one must fit; none fits all requests.
	Match []RateLimitMatch `json:"match,omitempty"`
	// Key is what requests are counted apart by; none counts all together.
	Key []RateLimitKey `json:"key,omitempty"`
	// Limits of which every one must hold.
	Limits []RateLimit `json:"limits"`
	// Cost of a request; absent is 1.
	Cost *RateLimitCost `json:"cost,omitempty"`
	// Shadow decides by this rule and tells, and refuses nothing.
	Shadow bool `json:"shadow,omitempty"`
	// Local counts at each replica of a waypoint apart, whatever the backend.
	Local bool `json:"local,omitempty"`
}

// RateLimitMatch fits when all that it names does.
type RateLimitMatch struct {
	Path        *gatewayv1.HTTPPathMatch        `json:"path,omitempty"`
	Methods     []gatewayv1.HTTPMethod          `json:"methods,omitempty"`
	Headers     []gatewayv1.HTTPHeaderMatch     `json:"headers,omitempty"`
	QueryParams []gatewayv1.HTTPQueryParamMatch `json:"queryParams,omitempty"`
	// Principals and Namespaces of the client: exact, or with "*" at one end.
	Principals []string `json:"principals,omitempty"`
	Namespaces []string `json:"namespaces,omitempty"`
}

// RateLimitKeyType says what a part of a key is.
type RateLimitKeyType string

// The types of keys. Header, QueryParam and JWTClaim need a name.
const (
	KeyIdentity       RateLimitKeyType = "Identity"
	KeyServiceAccount RateLimitKeyType = "ServiceAccount"
	KeyNamespace      RateLimitKeyType = "Namespace"
	KeyHeader         RateLimitKeyType = "Header"
	KeyPath           RateLimitKeyType = "Path"
	KeyMethod         RateLimitKeyType = "Method"
	KeyHost           RateLimitKeyType = "Host"
	KeyQueryParam     RateLimitKeyType = "QueryParam"
	KeySourceIP       RateLimitKeyType = "SourceIP"
	KeyJWTClaim       RateLimitKeyType = "JWTClaim"
)

// RateLimitKey is one part of a key.
type RateLimitKey struct {
	Type RateLimitKeyType `json:"type"`
	// Name of the header, parameter or claim (with dots between the steps).
	Name *string `json:"name,omitempty"`
	// Default stands for what a request lacks; without one the rule does not count it.
	Default *string `json:"default,omitempty"`
}

// RateLimit is requests (or their cost) per time.
type RateLimit struct {
	Requests int64 `json:"requests"`
	// Per is from 1ms to 24h.
	Per gatewayv1.Duration `json:"per"`
	// Burst may come at once; absent is Requests.
	Burst *int64 `json:"burst,omitempty"`
}

// RateLimitCost says what a request counts.
type RateLimitCost struct {
	// RequestHeader carries the cost.
	RequestHeader *string `json:"requestHeader,omitempty"`
	// ResponseHeader carries the cost, which is counted after the answer.
	ResponseHeader *string `json:"responseHeader,omitempty"`
	// Default of requests, or responses, without the header; absent is 1.
	Default *int64 `json:"default,omitempty"`
}

// RateLimitBackendType says who counts.
type RateLimitBackendType string

// The backends.
const (
	// BackendLocal counts at each replica of a waypoint apart.
	BackendLocal RateLimitBackendType = "Local"
	// BackendLeases has the control plane share limits out among replicas.
	BackendLeases RateLimitBackendType = "Leases"
	// BackendRedis counts in a Redis, exactly over all replicas.
	BackendRedis RateLimitBackendType = "Redis"
	// BackendService asks a service that speaks Envoy's rate limit API v3.
	BackendService RateLimitBackendType = "RateLimitService"
)

// RateLimitBackend counts.
type RateLimitBackend struct {
	Type RateLimitBackendType `json:"type"`
	// Redis for the type Redis.
	Redis *RedisBackend `json:"redis,omitempty"`
	// RateLimitService for the type of that name.
	RateLimitService *RateLimitServiceBackend `json:"rateLimitService,omitempty"`
}

// RedisBackend is where a Redis is.
type RedisBackend struct {
	// Address is host:port.
	Address string `json:"address"`
	// Database is 0 when absent.
	Database int32   `json:"database,omitempty"`
	Username *string `json:"username,omitempty"`
	// PasswordFile in the waypoint's file system.
	PasswordFile *string `json:"passwordFile,omitempty"`
	TLS          bool    `json:"tls,omitempty"`
}

// RateLimitServiceBackend is where a rate limit service is.
type RateLimitServiceBackend struct {
	BackendRef gatewayv1.BackendObjectReference `json:"backendRef"`
	Domain     string                           `json:"domain"`
}
