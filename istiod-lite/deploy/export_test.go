package deploy

import (
	"context"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/tools/cache"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/tulle-mesh/tulle/istiod-lite/source"
	"github.com/tulle-mesh/tulle/istiod-lite/translate"
)

// ReadParametersEvery is to be called before Run.
func (c *Controller) ReadParametersEvery(d time.Duration) { c.interval = d }

// Newest is the state that was observed last.
func (c *Controller) Newest() *source.Objects { return c.newest.Load() }

// ReconcileOnce has the waypoint of one Gateway be as it should by a state, as one
// who knows of nothing that was made.
func (c *Controller) ReconcileOnce(ctx context.Context, objects *source.Objects, name source.Name) error {
	c.newest.Store(objects)
	r := &run{Controller: c, seen: map[string]cache.Indexer{}, applied: map[source.Name]string{}, parametrised: map[source.Name]bool{}}
	for _, m := range allMade {
		r.seen[m.kind] = cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{byGateway: func(any) ([]string, error) { return nil, nil }})
	}
	return r.reconcile(ctx, name)
}

// Build is build for the golden files, with the parameters of one ConfigMap.
func Build(settings Settings, options translate.Options, gw *gatewayv1.Gateway, data map[string]string) ([]*unstructured.Unstructured, error) {
	var list []parameters
	if data != nil {
		p, err := readParameters("ConfigMap shop/parameters", data)
		if err != nil {
			return nil, err
		}
		list = append(list, p)
	}
	made, err := build(settings, options, gw, list)
	if err != nil {
		return nil, err
	}
	var out []*unstructured.Unstructured
	for _, w := range made {
		out = append(out, w.object)
	}
	return out, nil
}
