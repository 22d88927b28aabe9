package forward

import "github.com/spiffe/go-spiffe/v2/spiffeid"

// cert is Envoy's x-forwarded-client-cert: who the client is, and by whose word.
func (c *Client) cert(by spiffeid.ID) string {
	if s := c.forwarded.Load(); s != nil {
		return *s
	}
	s := "URI=" + c.Identity.String()
	if !by.IsZero() {
		s = "By=" + by.String() + ";" + s
	}
	c.forwarded.Store(&s)
	return s
}
