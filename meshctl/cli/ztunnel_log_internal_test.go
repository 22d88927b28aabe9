package cli

import (
	"context"
	"errors"
	"testing"

	"github.com/tulle-mesh/tulle/meshctl/mesh"
)

func TestALevelThatAllZtunnelsRefuseIsSaidOnce(t *testing.T) {
	var all []*mesh.Component
	for _, node := range []string{"n1", "n2", "n3"} {
		all = append(all, mesh.NewComponent(mesh.Component{Name: "ztunnel", Node: node}, func(context.Context, string, string) ([]byte, error) {
			if node == "n3" {
				return nil, errors.New("connection refused")
			}
			return nil, &mesh.RefusalError{Status: "400 Bad Request", Text: `logging: log level "loud": want debug, info, warn or error`}
		}))
	}
	_, errs := mesh.Each(t.Context(), all, func(ctx context.Context, c *mesh.Component) ([]byte, error) {
		return c.Post(ctx, "/logging?level=loud")
	})
	got := errors.Join(alike(errs)...).Error()
	want := `logging: log level "loud": want debug, info, warn or error` + "\nztunnel on n3 does not answer: connection refused"
	if got != want {
		t.Error(got)
	}
}
