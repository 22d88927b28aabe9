package jsonfault_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	networking "istio.io/api/networking/v1alpha3"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	policyv1alpha1 "github.com/tulle-mesh/tulle/api/policy/v1alpha1"
	"github.com/tulle-mesh/tulle/internal/istiojson"
	"github.com/tulle-mesh/tulle/internal/jsonfault"
)

var (
	virtualService  = (&networking.VirtualService{}).ProtoReflect().Descriptor()
	destinationRule = (&networking.DestinationRule{}).ProtoReflect().Descriptor()
)

func texts(faults []*jsonfault.Fault) []string {
	var out []string
	for _, f := range faults {
		out = append(out, f.Path+": "+f.Message)
	}
	return out
}

func TestMessagesSayWhichFieldIsWrongAndWhatIsWanted(t *testing.T) {
	for _, c := range []struct {
		rule bool
		spec string
		want []string
	}{
		{spec: `{"hosts":["web"],"http":[{"timeout":"1h","route":[{"destination":{"host":"web","port":{"number":80}},"weight":5}]}]}`},
		{spec: `{"http":[{"timeout":"99999999999s"}]}`}, // longer than package time has it
		{spec: `{"http":[{},{"timeout":"abc"}]}`, want: []string{`spec.http[1].timeout: "abc": want a duration, as 500ms, 10s or 1h30m`}},
		{spec: `{"http":[{"timeout":5}]}`, want: []string{`spec.http[0].timeout: 5: want a duration, as 500ms, 10s or 1h30m`}},
		{spec: `{"http":[{"retries":{"attempts":"two"}}]}`, want: []string{`spec.http[0].retries.attempts: "two": want a whole number from -2147483648 to 2147483647`}},
		{spec: `{"http":[{"route":[{"destination":{"port":{"number":-1}}}]}]}`, want: []string{`spec.http[0].route[0].destination.port.number: -1: want a whole number from 0 to 4294967295`}},
		{spec: `{"http":[{"route":[{"destination":{"port":{"number":8080.5}}}]}]}`, want: []string{`spec.http[0].route[0].destination.port.number: 8080.5: want a whole number from 0 to 4294967295`}},
		{spec: `{"http":[{"route":[{"destination":{"port":80}}]}]}`, want: []string{`spec.http[0].route[0].destination.port: 80: want an object`}},
		{spec: `{"hosts":"web"}`, want: []string{`spec.hosts: "web": want a list`}},
		{spec: `{"hosts":[true]}`, want: []string{`spec.hosts[0]: true: want a string; quote it if it is one`}},
		{spec: `{"http":{"timeout":"1s"}}`, want: []string{`spec.http: an object: want a list`}},
		{spec: `{"http":[{"match":[{"headers":{"x-a":{"exact":"b","prefix":"c"}}}]}]}`, want: []string{`spec.http[0].match[0].headers[x-a].prefix: excludes exact: only one of them may stand there`}},
		{spec: `{"http":[{"match":[{"headers":"x"}]}],"host":"x"}`, want: []string{`spec.host: unknown field "spec.host"`, `spec.http[0].match[0].headers: "x": want an object`}},
		{spec: `{"hosts":null}`, want: []string{`spec.hosts: has no value; give it one or leave it out`}},
		{spec: `[]`, want: []string{`spec: a list: want an object`}},
		{rule: true, spec: `{"trafficPolicy":{"outlierDetection":{"consecutive5xxErrors":"many","interval":"5 s","maxEjectionPercent":1e10}}}`, want: []string{
			`spec.trafficPolicy.outlierDetection.consecutive5xxErrors: "many": want a whole number from 0 to 4294967295`,
			`spec.trafficPolicy.outlierDetection.interval: "5 s": want a duration, as 500ms, 10s or 1h30m`,
			`spec.trafficPolicy.outlierDetection.maxEjectionPercent: 1e10: want a whole number from -2147483648 to 2147483647`,
		}},
		{rule: true, spec: `{"trafficPolicy":{"loadBalancer":{"simple":"ROUNDROBIN"}}}`, want: []string{
			`spec.trafficPolicy.loadBalancer.simple: "ROUNDROBIN": want one of UNSPECIFIED, LEAST_CONN, RANDOM, PASSTHROUGH, ROUND_ROBIN, LEAST_REQUEST`}},
	} {
		desc := virtualService
		if c.rule {
			desc = destinationRule
		}
		if got := texts(jsonfault.Message([]byte(c.spec), desc, "spec")); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", c.spec, got, c.want)
		}
	}
}

func TestValuesSayWhichFieldIsWrongAndWhatIsWanted(t *testing.T) {
	for _, c := range []struct {
		raw  string
		into any
		want []string
	}{
		{`{"metadata":{"name":"p"},"spec":{"rules":[{"limits":[{"requests":2,"per":"1s"}]}]},"unknown":1}`, &policyv1alpha1.RateLimitPolicy{}, nil},
		{`{"spec":{"rules":[{},{"limits":[{"requests":"2","per":60}]}]}}`, &policyv1alpha1.RateLimitPolicy{}, []string{
			`spec.rules[1].limits[0].per: 60: want a duration, as 500ms, 10s or 1h30m`,
			`spec.rules[1].limits[0].requests: "2": want a whole number without quotes`}},
		{`{"spec":{"rules":[{"limits":[{"requests":"many"},{"requests":1.5},{"requests":true}]}]}}`, &policyv1alpha1.RateLimitPolicy{}, []string{
			`spec.rules[0].limits[0].requests: "many": want a whole number`,
			`spec.rules[0].limits[1].requests: 1.5: want a whole number from -9223372036854775808 to 9223372036854775807`,
			`spec.rules[0].limits[2].requests: true: want a whole number`}},
		{`{"spec":{"rules":[{"limits":[{"requests":1e2}]}]}}`, &policyv1alpha1.RateLimitPolicy{}, []string{
			`spec.rules[0].limits[0].requests: 1e2: want a number without a point or an exponent`}},
		{`{"spec":{"parentRefs":{"name":"web"},"rules":[{"backendRefs":[{"name":"web","port":70000000000}]}]}}`, &gatewayv1.HTTPRoute{}, []string{
			`spec.parentRefs: an object: want a list`,
			`spec.rules[0].backendRefs[0].port: 70000000000: want a whole number from -2147483648 to 2147483647`}},
		{`{"metadata":{"name":true,"labels":{"a":1}}}`, &corev1.Pod{}, []string{
			`metadata.labels[a]: 1: want a string; quote it if it is one`, `metadata.name: true: want a string; quote it if it is one`}},
		{`{"spec":{"containers":[{"ports":[{"containerPort":"http"}]}],"hostNetwork":"maybe"}}`, &corev1.Pod{}, []string{
			`spec.containers[0].ports[0].containerPort: "http": want a whole number`, `spec.hostNetwork: "maybe": want true or false`}},
		{`[]`, &corev1.Pod{}, []string{`: a list: want an object`}},
	} {
		if got := texts(jsonfault.Value([]byte(c.raw), c.into)); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", c.raw, got, c.want)
		}
	}
}

func TestATypeThatDecodesItselfSaysWhatItDoesNotTake(t *testing.T) {
	var into struct {
		Since metav1.Time   `json:"since"`
		Body  []byte        `json:"body"`
		For   time.Duration `json:"for"`
	}
	got := texts(jsonfault.Value([]byte(`{"since":"yesterday","body":"***","for":"1s"}`), &into))
	for i, want := range []string{`body: "***": `, `for: "1s": want a whole number`, `since: "yesterday": `} {
		if len(got) != 3 || !strings.HasPrefix(got[i], want) {
			t.Fatalf("%q", got)
		}
	}
}

// FuzzMessage holds that what protojson takes has no fault but what it would leave out,
// and that no document is too much.
func FuzzMessage(f *testing.F) {
	f.Add([]byte(`{"http":[{"timeout":"1.5s","fault":{"delay":{"fixedDelay":"0.000000001s"}},"route":[{"weight":1e1}]}]}`))
	f.Add([]byte(`{"http":[{"timeout":"abc"},7],"hosts":{}}`))
	f.Fuzz(func(t *testing.T, spec []byte) {
		faults := jsonfault.Message(spec, virtualService, "spec")
		var vs networking.VirtualService
		if err := protojson.Unmarshal(istiojson.Seconds(spec, virtualService), &vs); err != nil {
			return
		}
		for _, fault := range faults {
			if !strings.Contains(fault.Message, "has no value") && !strings.Contains(fault.Message, "null: want") && !strings.Contains(fault.Message, "want one of") {
				t.Errorf("%s: %s: %s", spec, fault.Path, fault.Message)
			}
		}
	})
}

// FuzzValue holds that what encoding/json takes has no fault.
func FuzzValue(f *testing.F) {
	f.Add([]byte(`{"spec":{"rules":[{"limits":[{"requests":2,"per":"1s"}]}]}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		faults := jsonfault.Value(raw, &policyv1alpha1.RateLimitPolicy{})
		if err := json.Unmarshal(raw, &policyv1alpha1.RateLimitPolicy{}); err == nil && len(faults) > 0 {
			t.Errorf("%s: %s: %s", raw, faults[0].Path, faults[0].Message)
		}
	})
}
