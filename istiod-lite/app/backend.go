package app

import (
	"context"

	"go.uber.org/zap"

	"github.com/tulle-mesh/tulle/certs"
	"github.com/tulle-mesh/tulle/internal/lifecycle"
	"github.com/tulle-mesh/tulle/istiod-lite/ca"
	"github.com/tulle-mesh/tulle/istiod-lite/source"
	"github.com/tulle-mesh/tulle/istiod-lite/translate"
)

// configSource is an objectSource as the process runs and shows it.
type configSource interface {
	objectSource
	// Run reads until ctx ends.
	Run(ctx context.Context) error
	Status() source.Status
}

// backend is what a mesh of files and one in a cluster differ in: where objects,
// the signing key and the knowledge of who is calling come from.
type backend struct {
	source        configSource
	options       translate.Options
	authenticator ca.Authenticator
	placement     ca.Placement
	// pods has the pods of callers looked up; nil where a token is enough.
	pods ca.Pods
	// complete has nobody served before the first state is published: a
	// replica that has not read the cluster yet is no help to anybody.
	complete bool
	// open returns the authority, after waiting for its key if need be.
	open func(context.Context) (*certs.Authority, error)
	// follow starts what works beside the servers, once the authority is open;
	// nil when there is nothing.
	follow func(*lifecycle.Group, *certs.Authority) error
	// leading reports whether this replica is the one that decides for all; nil where
	// there is but one.
	leading func() bool
	// observe is told of every state that is served; nil when nobody cares.
	observe func(*source.Objects)
	// warnings adds to what translation warns of what conditions would tell; nil where
	// conditions are written.
	warnings func([]translate.Warning, *source.Objects) []translate.Warning
	// close releases what was opened.
	close func()
	// describe tells of the backend in the log.
	describe []zap.Field
}

// placement asks the objects in force.
type placement struct{ source objectSource }

// RunsOnNode implements ca.Placement.
func (p placement) RunsOnNode(node, namespace, serviceAccount string) bool {
	return p.source.Objects().RunsOnNode(node, namespace, serviceAccount)
}
