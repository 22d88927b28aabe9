package outbound

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// joinPeers makes the part of a pool's key that tells tunnels with different
// expectations apart: the identities, sorted. SPIFFE IDs hold no commas.
func joinPeers(ids []spiffeid.ID) string {
	if len(ids) == 1 {
		return ids[0].String()
	}
	names := make([]string, len(ids))
	for i, id := range ids {
		names[i] = id.String()
	}
	slices.Sort(names)
	return strings.Join(slices.Compact(names), ",")
}

// splitPeers is the reverse of joinPeers.
func splitPeers(s string) ([]spiffeid.ID, error) {
	var ids []spiffeid.ID
	for name := range strings.SplitSeq(s, ",") {
		id, err := spiffeid.FromString(name)
		if err != nil {
			return nil, fmt.Errorf("expected identity %q: %w", name, err)
		}
		ids = append(ids, id)
	}
	return ids, nil
}

func expects(expected []spiffeid.ID, id spiffeid.ID) bool { return slices.Contains(expected, id) }
