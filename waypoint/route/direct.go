package route

import (
	"fmt"

	api "github.com/tulle-mesh/tulle/api/waypoint"
)

// Direct answers a request in the place of a backend.
type Direct struct {
	Status int
	// Body is text/plain, unless a change of the response's fields says otherwise. Nobody
	// may change it.
	Body []byte
}

func compileDirect(d *api.DirectResponse) (*Direct, error) {
	out := &Direct{Status: int(d.GetStatus()), Body: d.GetBody()}
	switch {
	case d.GetStatus() < 200 || d.GetStatus() > 599:
		return nil, fmt.Errorf("answers with status %d", d.GetStatus())
	case len(out.Body) > maxDirectBytes:
		return nil, fmt.Errorf("answers with %d bytes, of %d that are allowed", len(out.Body), maxDirectBytes)
	case len(out.Body) > 0 && (out.Status == 204 || out.Status == 304):
		return nil, fmt.Errorf("answers with content and status %d, which has none", out.Status)
	}
	return out, nil
}

// Direct returns the answer, nil without one.
func (f Filters) Direct() *Direct {
	for i := range f {
		if f[i].Direct != nil {
			return f[i].Direct
		}
	}
	return nil
}
