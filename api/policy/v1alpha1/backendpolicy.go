package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// BackendPolicy says how waypoints send requests to a service: what DestinationRule
// and XBackendTrafficPolicy have no words for, and what they have in fewer. Parts
// that it states go before theirs.
type BackendPolicy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   BackendPolicySpec `json:"spec"`
	Status PolicyStatus      `json:"status,omitempty"`
}

// BackendPolicySpec leaves what it does not say as it is.
type BackendPolicySpec struct {
	// TargetRefs are Services or ServiceEntries; sectionName is one of their ports, by
	// name.
	TargetRefs          []TargetRef          `json:"targetRefs"`
	LoadBalancer        *LoadBalancer        `json:"loadBalancer,omitempty"`
	HealthCheck         *HealthCheck         `json:"healthCheck,omitempty"`
	OutlierDetection    *OutlierDetection    `json:"outlierDetection,omitempty"`
	PanicPercent        *int32               `json:"panicPercent,omitempty"`
	CircuitBreaker      *CircuitBreaker      `json:"circuitBreaker,omitempty"`
	ConnectionPool      *ConnectionPool      `json:"connectionPool,omitempty"`
	RetryBudget         *RetryBudget         `json:"retryBudget,omitempty"`
	AdaptiveConcurrency *AdaptiveConcurrency `json:"adaptiveConcurrency,omitempty"`
}

// The types of a LoadBalancer.
const (
	LeastRequest = "LeastRequest"
	RoundRobin   = "RoundRobin"
	Random       = "Random"
	PeakEWMA     = "PeakEWMA"
	RingHash     = "RingHash"
	Maglev       = "Maglev"
)

// LoadBalancer chooses an endpoint for each request.
type LoadBalancer struct {
	// Type is LeastRequest, RoundRobin, Random, PeakEWMA, RingHash or Maglev.
	Type string `json:"type"`
	// Hash is what RingHash and Maglev hash: the first that a request has.
	Hash []HashKey `json:"hash,omitempty"`
	// RingSize is the least number of places on the ring; 1,024 when absent.
	RingSize *int64 `json:"ringSize,omitempty"`
	// TableSize of Maglev's, a prime; 65,537 when absent.
	TableSize *int64     `json:"tableSize,omitempty"`
	SlowStart *SlowStart `json:"slowStart,omitempty"`
}

// The types of a HashKey.
const (
	HashHeader     = "Header"
	HashQueryParam = "QueryParam"
	HashCookie     = "Cookie"
	HashSourceIP   = "SourceIP"
)

// HashKey is a part of a request.
type HashKey struct {
	// Type is Header, QueryParam, Cookie or SourceIP.
	Type string `json:"type"`
	// Name of the field, the parameter or the cookie.
	Name string `json:"name,omitempty"`
	// Path and TTL of a cookie, which the waypoint sets when there is a TTL and a
	// request without; a TTL of 0s lasts as long as the browser's session.
	Path string              `json:"path,omitempty"`
	TTL  *gatewayv1.Duration `json:"ttl,omitempty"`
}

// SlowStart gives endpoints that are new less than their share for a while.
type SlowStart struct {
	Window gatewayv1.Duration `json:"window"`
	// MinPercent is the share at the beginning; 10 when absent.
	MinPercent *int32 `json:"minPercent,omitempty"`
}

// HealthCheck asks endpoints at intervals; exactly one of HTTP, GRPC and TCP.
type HealthCheck struct {
	HTTP *HTTPHealthCheck `json:"http,omitempty"`
	GRPC *GRPCHealthCheck `json:"grpc,omitempty"`
	TCP  *TCPHealthCheck  `json:"tcp,omitempty"`
	// Interval and Timeout absent are the waypoint's.
	Interval           *gatewayv1.Duration `json:"interval,omitempty"`
	Timeout            *gatewayv1.Duration `json:"timeout,omitempty"`
	UnhealthyThreshold *int32              `json:"unhealthyThreshold,omitempty"`
	HealthyThreshold   *int32              `json:"healthyThreshold,omitempty"`
}

// HTTPHealthCheck is a GET.
type HTTPHealthCheck struct {
	Path string `json:"path"`
	Host string `json:"host,omitempty"`
	// Codes that are healthy; 200 to 399 when empty.
	Codes []int32 `json:"codes,omitempty"`
}

// GRPCHealthCheck asks about a service by grpc.health.v1.
type GRPCHealthCheck struct {
	Service string `json:"service,omitempty"`
}

// TCPHealthCheck connects.
type TCPHealthCheck struct{}

// OutlierDetection leaves endpoints out that fail. What is absent is not looked at.
type OutlierDetection struct {
	Consecutive5xxErrors     *int32              `json:"consecutive5xxErrors,omitempty"`
	ConsecutiveGatewayErrors *int32              `json:"consecutiveGatewayErrors,omitempty"`
	ConsecutiveLocalErrors   *int32              `json:"consecutiveLocalErrors,omitempty"`
	Interval                 *gatewayv1.Duration `json:"interval,omitempty"`
	BaseEjectionTime         *gatewayv1.Duration `json:"baseEjectionTime,omitempty"`
	MaxEjectionTime          *gatewayv1.Duration `json:"maxEjectionTime,omitempty"`
	MaxEjectionPercent       *int32              `json:"maxEjectionPercent,omitempty"`
	SuccessRate              *SuccessRate        `json:"successRate,omitempty"`
	FailurePercentage        *FailurePercentage  `json:"failurePercentage,omitempty"`
}

// SuccessRate ejects endpoints that succeed less often than the others.
type SuccessRate struct {
	// Factor is by how many thousandths of a standard deviation; 1,900 when absent.
	Factor *int32 `json:"factor,omitempty"`
	// MinimumEndpoints that have had MinimumRequests in an interval; 5 and 100 when
	// absent.
	MinimumEndpoints *int32 `json:"minimumEndpoints,omitempty"`
	MinimumRequests  *int32 `json:"minimumRequests,omitempty"`
}

// FailurePercentage ejects endpoints that fail more often than that.
type FailurePercentage struct {
	Percent          int32  `json:"percent"`
	MinimumEndpoints *int32 `json:"minimumEndpoints,omitempty"`
	MinimumRequests  *int32 `json:"minimumRequests,omitempty"`
}

// CircuitBreaker bounds what is under way to the service from one waypoint's pod.
// What is absent has no bound.
type CircuitBreaker struct {
	MaxConnections     *int32 `json:"maxConnections,omitempty"`
	MaxPendingRequests *int32 `json:"maxPendingRequests,omitempty"`
	MaxRequests        *int32 `json:"maxRequests,omitempty"`
	MaxRetries         *int32 `json:"maxRetries,omitempty"`
}

// ConnectionPool says how connections to endpoints are kept.
type ConnectionPool struct {
	MaxRequestsPerConnection *int32              `json:"maxRequestsPerConnection,omitempty"`
	MaxStreams               *int32              `json:"maxStreams,omitempty"`
	IdleTimeout              *gatewayv1.Duration `json:"idleTimeout,omitempty"`
	ConnectTimeout           *gatewayv1.Duration `json:"connectTimeout,omitempty"`
	MaxConnectionDuration    *gatewayv1.Duration `json:"maxConnectionDuration,omitempty"`
	// HTTP2 speaks HTTP/2 to endpoints of a port that says HTTP/1.1.
	HTTP2 bool `json:"http2,omitempty"`
}

// RetryBudget bounds retries to a part of the requests.
type RetryBudget struct {
	// Percent of the requests of the last Interval; 20 of 10s when absent.
	Percent  *int32              `json:"percent,omitempty"`
	Interval *gatewayv1.Duration `json:"interval,omitempty"`
	// MinRetries in each MinInterval are allowed besides; 10 in 1s when absent.
	MinRetries  *int32              `json:"minRetries,omitempty"`
	MinInterval *gatewayv1.Duration `json:"minInterval,omitempty"`
}

// AdaptiveConcurrency bounds the requests under way by what their latency tells.
// Figures that are absent are the waypoint's.
type AdaptiveConcurrency struct {
	Percentile     *int32              `json:"percentile,omitempty"`
	Window         *gatewayv1.Duration `json:"window,omitempty"`
	MinRTTInterval *gatewayv1.Duration `json:"minRTTInterval,omitempty"`
	MinRTTRequests *int32              `json:"minRTTRequests,omitempty"`
	MinConcurrency *int32              `json:"minConcurrency,omitempty"`
	MaxConcurrency *int32              `json:"maxConcurrency,omitempty"`
	BufferPercent  *int32              `json:"bufferPercent,omitempty"`
	// Priorities: the first that fits says how urgent a request is; Normal otherwise.
	Priorities []PriorityRule `json:"priorities,omitempty"`
}

// The priorities of requests; the low ones are refused first.
const (
	PriorityLow      = "Low"
	PriorityNormal   = "Normal"
	PriorityHigh     = "High"
	PriorityCritical = "Critical"
)

// PriorityRule fits when all of its lists that are not empty do.
type PriorityRule struct {
	// Priority is Low, Normal, High or Critical.
	Priority string        `json:"priority"`
	Headers  []HeaderMatch `json:"headers,omitempty"`
	// Namespaces and Principals of the client, as they are.
	Namespaces []string `json:"namespaces,omitempty"`
	Principals []string `json:"principals,omitempty"`
}
