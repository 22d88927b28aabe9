package jwt

import "fmt"

// Refusal is the error of a request that may not pass on account of its token.
type Refusal struct {
	// Status is 401, or 503 where the rules themselves are not known.
	Status int
	// Reason is a sentence for the operator. It quotes no token.
	Reason string
}

func (r *Refusal) Error() string { return r.Reason }

// Challenge is the value of the WWW-Authenticate field to answer with (RFC 6750,
// 3.1), empty for other statuses than 401.
func (r *Refusal) Challenge() string {
	if r.Status != 401 {
		return ""
	}
	return `Bearer error="invalid_token"`
}

func refuse(format string, args ...any) *Refusal {
	return &Refusal{Status: 401, Reason: fmt.Sprintf(format, args...)}
}
