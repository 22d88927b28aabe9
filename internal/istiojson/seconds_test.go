package istiojson_test

import (
	"encoding/json"
	"testing"

	networking "istio.io/api/networking/v1alpha3"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/tulle-mesh/tulle/internal/istiojson"
)

var virtualService = (&networking.VirtualService{}).ProtoReflect().Descriptor()

func TestSeconds(t *testing.T) {
	for in, want := range map[string]string{
		`{"http":[{"timeout":"1h"}]}`:                                  `{"http":[{"timeout":"3600s"}]}`,
		`{"http":[{"timeout":"1m30s"},{"retries":{"backoff":"5ms"}}]}`: `{"http":[{"timeout":"90s"},{"retries":{"backoff":"0.005s"}}]}`,
		`{"http":[{"timeout":"-1.5s"}]}`:                               `{"http":[{"timeout":"-1.5s"}]}`,
		`{"http":[{"timeout":"1h0.000000001s"}]}`:                      `{"http":[{"timeout":"3600.000000001s"}]}`,
		// Only durations are rewritten, and only those that are.
		`{"http":[{"match":[{"headers":{"x":{"exact":"1h"}}}],"timeout":"soon"}]}`: `{"http":[{"match":[{"headers":{"x":{"exact":"1h"}}}],"timeout":"soon"}]}`,
		`{"http":"1h"}`:                         `{"http":"1h"}`,
		`{"http":[{"timeout":7}],"other":"1h"}`: `{"http":[{"timeout":7}],"other":"1h"}`,
		`no`:                                    `no`,
	} {
		if got := istiojson.Seconds(json.RawMessage(in), virtualService); string(got) != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}

// FuzzSeconds holds that what protojson takes means the same afterwards.
func FuzzSeconds(f *testing.F) {
	f.Add([]byte(`{"http":[{"timeout":"1.5s","fault":{"delay":{"fixedDelay":"0.000000001s"}},"match":[{"headers":{"a":{"exact":"b"}}}]}]}`))
	f.Add([]byte(`{"http":[{"timeout":"1h"},null,{"retries":null}]}`))
	f.Fuzz(func(t *testing.T, spec []byte) {
		var before, after networking.VirtualService
		if protojson.Unmarshal(spec, &before) != nil {
			istiojson.Seconds(spec, virtualService)
			return
		}
		if err := protojson.Unmarshal(istiojson.Seconds(spec, virtualService), &after); err != nil {
			t.Fatal(err)
		}
		if !proto.Equal(&before, &after) {
			t.Fatalf("%v became %v", &before, &after)
		}
	})
}
