package deploy

import (
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/tulle-mesh/tulle/istiod-lite/translate"
)

// ReadParametersEvery is to be called before Run.
func (c *Controller) ReadParametersEvery(d time.Duration) { c.interval = d }

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
