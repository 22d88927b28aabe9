package route

import (
	"fmt"
	"strings"

	api "github.com/tulle-mesh/tulle/api/waypoint"
	"github.com/tulle-mesh/tulle/waypoint/message"
)

// HeaderChange sets, then adds, then removes fields.
type HeaderChange struct {
	set, add message.Header
	remove   []string
}

// Apply changes h.
func (c *HeaderChange) Apply(h *message.Header) {
	for _, f := range c.set {
		h.Set(f.Name, f.Value)
	}
	*h = append(*h, c.add...)
	for _, name := range c.remove {
		h.Del(name)
	}
}

func compileHeaderChange(c *api.HeaderChange) (*HeaderChange, error) {
	out := &HeaderChange{}
	for _, to := range []struct {
		header *message.Header
		fields []*api.HeaderField
	}{{&out.set, c.GetSet()}, {&out.add, c.GetAdd()}} {
		for _, f := range to.fields {
			name := strings.ToLower(f.GetName())
			if err := changeable(name); err != nil {
				return nil, err
			}
			if !message.ValidValue(f.GetValue()) {
				return nil, fmt.Errorf("value of header field %s", name)
			}
			to.header.Add(name, f.GetValue())
		}
	}
	for _, name := range c.GetRemove() {
		name = strings.ToLower(name)
		if err := changeable(name); err != nil {
			return nil, err
		}
		out.remove = append(out.remove, name)
	}
	return out, nil
}

// changeable refuses names of fields that frame a message, belong to one connection or
// name the host: with another value two servers would read the message differently.
func changeable(name string) error {
	switch {
	case !message.ValidName(name):
		return fmt.Errorf("%q is no name of a header field", name)
	case message.Reserved(name), name == "te", name == "trailer":
		return fmt.Errorf("header field %s cannot be changed by a filter", name)
	}
	return nil
}
