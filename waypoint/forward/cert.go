package forward

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/tulle-mesh/tulle/waypoint/message"
)

// cert is Envoy's x-forwarded-client-cert: who the client is, by what certificate, and by
// whose word.
func (c *Client) cert(by spiffeid.ID) string {
	if s := c.forwarded.Load(); s != nil {
		return *s
	}
	var b strings.Builder
	if !by.IsZero() {
		b.WriteString("By=" + by.String() + ";")
	}
	if c.Certificate != nil {
		sum := sha256.Sum256(c.Certificate.Raw)
		b.WriteString("Hash=" + hex.EncodeToString(sum[:]) + ";")
		// SVIDs have none, mostly. Quotes in it are escaped (RFC 2253).
		if subject := c.Certificate.Subject.String(); message.ValidValue(subject) {
			b.WriteString(`Subject="` + subject + `";`)
		}
	}
	b.WriteString("URI=" + c.Identity.String())
	s := b.String()
	c.forwarded.Store(&s)
	return s
}
