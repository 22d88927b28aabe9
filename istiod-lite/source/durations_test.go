package source_test

import (
	"testing"
	"time"

	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"

	"github.com/tulle-mesh/tulle/istiod-lite/source"
)

// TestDurationsAreThoseOfIstiosDocuments reads the forms that Istio's API server takes.
func TestDurationsAreThoseOfIstiosDocuments(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"5s": 5 * time.Second, "1h": time.Hour, "1m30s": 90 * time.Second, "50ms": 50 * time.Millisecond, "0.25s": 250 * time.Millisecond, "1h0.000001s": time.Hour + time.Microsecond,
	} {
		raw := []byte(`{"metadata":{"name":"a","namespace":"b"},"spec":{"hosts":["web"],"http":[{"timeout":"` + text + `","match":[{"headers":{"x":{"exact":"1h"}}}],"route":[{"destination":{"host":"web"}}]}]}}`)
		for name, read := range map[string]func(*networkingv1.VirtualService) any{
			"file": func(vs *networkingv1.VirtualService) any {
				strict, err := source.Unmarshal(raw, vs)
				if err != nil || len(strict) > 0 {
					return append(strict, err)
				}
				return nil
			},
			"served": func(vs *networkingv1.VirtualService) any {
				if faults := (source.Checker{RootNamespace: "istio-system", Served: true}).Decode(raw, vs); len(faults) > 0 {
					return faults
				}
				return nil
			},
		} {
			vs := &networkingv1.VirtualService{}
			if err := read(vs); err != nil {
				t.Errorf("%s %s: %v", name, text, err)
				continue
			}
			if got := vs.Spec.GetHttp()[0].GetTimeout().AsDuration(); got != want {
				t.Errorf("%s %s: %v", name, text, got)
			}
			if got := vs.Spec.GetHttp()[0].GetMatch()[0].GetHeaders()["x"].GetExact(); got != "1h" {
				t.Errorf("%s: a value became %q", name, got)
			}
		}
	}
	vs := &networkingv1.VirtualService{}
	strict, err := source.Unmarshal([]byte(`{"metadata":{"name":"a"},"spec":{"hosts":["web"],"http":[{"timeout":"soon"}]}}`), vs)
	if err != nil || len(strict) != 1 || source.FieldOf(strict[0]) != "spec.http[0].timeout" {
		t.Errorf("a duration that is none: %v %v", strict, err)
	}
}
