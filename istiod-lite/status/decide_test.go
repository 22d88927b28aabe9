package status_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	security "istio.io/api/security/v1beta1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"

	"github.com/tulle-mesh/tulle/istiod-lite/source"
	"github.com/tulle-mesh/tulle/istiod-lite/status"
)

// TestALongMessageIsCutBetweenCharacters has somebody's values make a message
// longer than a condition's may be.
func TestALongMessageIsCutBetweenCharacters(t *testing.T) {
	for _, before := range []string{"", "x"} {
		d := status.Decider{Problems: func(source.Key) []source.Problem {
			return []source.Problem{{Field: "spec", Message: before + strings.Repeat("é", 40_000)}}
		}}
		want, _ := d.Decide(&source.Objects{}, &securityv1.AuthorizationPolicy{Spec: security.AuthorizationPolicy{}})
		message := want.Conditions[0].Message
		if n := len(message); n > 32<<10 || n < 32<<10-utf8.UTFMax || !utf8.ValidString(message) {
			t.Errorf("%d bytes, valid UTF-8: %v", n, utf8.ValidString(message))
		}
	}
}
