package source

import "time"

const (
	// MaxObjects bounds one Objects. A mesh of 50,000 pods has about 120,000
	// objects; the bound stops a runaway generator before memory does.
	MaxObjects = 500_000

	// maxPolicyValues bounds the values of one list in an AuthorizationPolicy,
	// for the proxies evaluate them one by one on each connection.
	maxPolicyValues = 4096

	// maxPolicyRules bounds the rules of one policy, and the entries of a
	// rule's from, to and when.
	maxPolicyRules = 1024

	// maxHosts and maxEndpoints bound one ServiceEntry. Kubernetes bounds an
	// EndpointSlice to 1000 endpoints and 100 ports.
	maxHosts     = 256
	maxEndpoints = 1000
	maxPorts     = 256

	// The Gateway API's own bounds are 32 parents, 16 rules and 64 matches (128 in
	// all); generated meshes have more, and the waypoints' router does not mind.
	maxParents      = 1024
	maxRouteRules   = 8192
	maxRouteMatches = 1024
	// maxWeight is the Gateway API's.
	maxWeight = 1_000_000
	// maxRouteDuration bounds a timeout; GEP-2257 has five digits of hours.
	maxRouteDuration = 99999 * time.Hour

	// A RateLimitPolicy's bounds: all of its rules are asked for each request. A limit
	// is at most 1e9 requests, so that its arithmetic fits 64 bits (waypoint/ratelimit).
	maxPolicyTargets     = 64
	maxRateLimitRules    = 64
	maxRateLimitParts    = 16 // of a key, and matches
	maxRateLimits        = 4  // of a rule
	maxRateLimitRequests = 1_000_000_000
	// maxRateLimitTimeout bounds how long a request waits for its limit.
	maxRateLimitTimeout = 10 * time.Second

	// maxSubsets bounds those of a DestinationRule: each is a set of endpoints of its own
	// at the waypoint.
	maxSubsets = 256
	// maxRingSize and maxMaglevTable are Envoy's, in places.
	maxRingSize    = 8 << 20
	maxMaglevTable = 5_000_011
	// maxDirectBody bounds an answer that a VirtualService gives, in bytes; Istio's.
	maxDirectBody = 1 << 20
	// maxPolicyHeaders and maxPriorities bound what is asked of each request.
	maxPolicyHeaders = 64
	maxPriorities    = 64

	// maxTelemetryParts bounds the entries of a list of a Telemetry, and maxTelemetryTags
	// the tags of one: each costs something for every request.
	maxTelemetryParts = 64
	maxTelemetryTags  = 32

	// maxHistory bounds the changes that a Store remembers, in changes: some
	// seconds at a thousand a second. Who is further behind compares everything.
	maxHistory = 8192
)
