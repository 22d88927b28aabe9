package redirect

import (
	"fmt"

	"github.com/tulle-mesh/tulle/internal/netns"
)

// Present tells whether any of our tables is in ns, whole or not.
func Present(ns *netns.NS) (bool, error) {
	conn, err := open(ns)
	if err != nil {
		return false, err
	}
	defer conn.CloseLasting()
	have, err := list(conn)
	if err != nil {
		return false, fmt.Errorf("redirection in %v: %w", ns.ID(), err)
	}
	return len(have) > 0, nil
}
