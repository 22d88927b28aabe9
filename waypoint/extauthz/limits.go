package extauthz

import "time"

const (
	// defaultTimeout is that of one question, attempts and all, where the provider sets
	// none. Istio's is 600 seconds, which would hold a place for every request under way
	// while an authorizer hangs.
	defaultTimeout = 5 * time.Second
	// maxTimeout bounds what a provider may set.
	maxTimeout = time.Minute
	// maxAttempts is how often a question is sent that has reached nobody: endpoints go,
	// and pooled connections close.
	maxAttempts = 3
	// MaxBodyBytes bounds how much content a question may carry, and so what a waypoint
	// holds of a request (Envoy's buffers have 1 MiB by default).
	MaxBodyBytes = 4 << 20
	// maxAnswerBytes bounds the message or content of an answer: a page with a reason.
	maxAnswerBytes = 256 << 10
	// maxProviders bounds the providers that are counted apart: a mesh has a few, but names
	// come and go with its configuration.
	maxProviders = 200
	// maxChanges bounds the fields and parameters that one answer may change.
	maxChanges = 256
)
