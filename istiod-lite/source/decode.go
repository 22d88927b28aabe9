package source

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"

	networking "istio.io/api/networking/v1alpha3"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	telemetryv1 "istio.io/client-go/pkg/apis/telemetry/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kjson "sigs.k8s.io/json"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/tulle-mesh/tulle/internal/istiojson"
	"github.com/tulle-mesh/tulle/internal/jsonfault"
)

var (
	unknownField   = regexp.MustCompile(`(?:unknown|duplicate) field "([^"]+)"`)
	intoField      = regexp.MustCompile(`into Go struct field [A-Za-z]*\.(\S+) of type`)
	protoFieldName = regexp.MustCompile(`for (?:\S+ )?field "?([A-Za-z0-9_.]+)"?`)
)

// FieldOf returns the path of the field at fault. The libraries' decoders say it
// in their texts only.
func FieldOf(err error) string {
	var f *jsonfault.Fault
	if errors.As(err, &f) {
		return f.Path
	}
	for _, re := range []*regexp.Regexp{unknownField, intoField, protoFieldName} {
		if m := re.FindStringSubmatch(err.Error()); m != nil {
			return m[1]
		}
	}
	return ""
}

// Explain returns the error's text and adds the way out of YAML's oldest trap.
func Explain(err error) string {
	text := strings.TrimPrefix(err.Error(), "json: ")
	if strings.Contains(text, "cannot unmarshal bool") || strings.HasPrefix(text, "true: want") || strings.HasPrefix(text, "false: want") {
		text += " (YAML takes y, n, yes, no, on and off for true and false: quote them)"
	}
	return text
}

// istioObject is an Istio object with its spec still in JSON. Istio's own
// UnmarshalJSON lets unknown fields pass, so the spec goes through protojson.
type istioObject struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              json.RawMessage `json:"spec"`
	// Status is written by controllers, in whatever version they have. A file's
	// is not read; see Decode.
	Status json.RawMessage `json:"status"`
}

// istioParts returns the parts of an Istio object, all nil for one of another kind.
func istioParts(obj metav1.Object) (meta *metav1.ObjectMeta, spec, status proto.Message) {
	switch o := obj.(type) {
	case *securityv1.AuthorizationPolicy:
		return &o.ObjectMeta, &o.Spec, &o.Status
	case *securityv1.PeerAuthentication:
		return &o.ObjectMeta, &o.Spec, &o.Status
	case *securityv1.RequestAuthentication:
		return &o.ObjectMeta, &o.Spec, &o.Status
	case *telemetryv1.Telemetry:
		return &o.ObjectMeta, &o.Spec, &o.Status
	case *networkingv1.ServiceEntry:
		return &o.ObjectMeta, &o.Spec, &o.Status
	case *networkingv1.WorkloadEntry:
		return &o.ObjectMeta, &o.Spec, &o.Status
	case *networkingv1.DestinationRule:
		return &o.ObjectMeta, &o.Spec, &o.Status
	case *networkingv1.VirtualService:
		return &o.ObjectMeta, &o.Spec, &o.Status
	}
	return nil, nil, nil
}

// Unmarshal fills obj, an empty object of an Acted kind, from JSON. strict holds the
// errors about fields that are unknown, double or do not fit their type: FieldOf has
// their paths. err is one of which no field can be named.
func Unmarshal(raw []byte, obj metav1.Object) (strict []error, err error) {
	meta, spec, _ := istioParts(obj)
	if meta == nil {
		return unmarshalStrict(raw, obj)
	}
	var outer istioObject
	if strict, err = unmarshalStrict(raw, &outer); err != nil {
		return strict, err
	}
	*meta = outer.ObjectMeta
	if len(outer.Spec) == 0 || bytes.Equal(outer.Spec, []byte("null")) {
		if _, ok := spec.(*networking.ServiceEntry); ok && len(strict) == 0 {
			return nil, &jsonfault.Fault{Path: "spec", Message: "is missing"}
		}
		return strict, nil
	}
	if strict = append(strict, checkFields(outer.Spec, spec.ProtoReflect().Descriptor())...); len(strict) > 0 {
		return strict, nil
	}
	if err := (protojson.UnmarshalOptions{}).Unmarshal(istiojson.Seconds(outer.Spec, spec.ProtoReflect().Descriptor()), spec); err != nil {
		text := strings.ReplaceAll(err.Error(), "\u00a0", " ") // protobuf varies its spaces on purpose
		return nil, fmt.Errorf("spec: %s", strings.TrimSpace(strings.TrimPrefix(text, "proto:")))
	}
	return nil, nil
}

// unmarshalStrict names the fields that do not fit their type, where the library names
// the first alone, without the places in lists.
func unmarshalStrict(raw []byte, into any) ([]error, error) {
	strict, err := kjson.UnmarshalStrict(raw, into)
	if err == nil {
		return strict, nil
	}
	if faults := faultsOfType(raw, into); len(faults) > 0 {
		return append(strict, faults...), nil
	}
	return strict, err
}

// Decode fills obj, an empty object of one of Istio's kinds, from JSON that an API
// server sent, as far as it is understood, and returns what is not: fields that
// are not known and values that Check refuses. With faults obj holds the rest; a
// Fault without a field says that nothing could be read but the metadata and
// perhaps the selector.
func (c Checker) Decode(raw []byte, obj metav1.Object) []Fault {
	return append(unmarshalServed(raw, obj), FaultsOf(c.Check(obj))...)
}

func unmarshalServed(raw []byte, obj metav1.Object) []Fault {
	meta, spec, status := istioParts(obj)
	var outer istioObject
	if err := json.Unmarshal(raw, &outer); err != nil {
		return []Fault{{Message: "cannot be read: " + err.Error()}}
	}
	*meta = outer.ObjectMeta
	lenient := protojson.UnmarshalOptions{DiscardUnknown: true}
	if len(outer.Status) > 0 {
		if lenient.Unmarshal(outer.Status, status) != nil {
			proto.Reset(status) // written by whom Tulle does not know
		}
	}
	if len(outer.Spec) == 0 || bytes.Equal(outer.Spec, []byte("null")) {
		if _, ok := spec.(*networking.ServiceEntry); ok {
			return []Fault{{Field: "spec", Message: "is missing"}}
		}
		return nil
	}
	var faults []Fault
	for _, err := range checkFields(outer.Spec, spec.ProtoReflect().Descriptor()) {
		faults = append(faults, Fault{Field: FieldOf(err), Message: err.Error()})
	}
	if err := lenient.Unmarshal(istiojson.Seconds(outer.Spec, spec.ProtoReflect().Descriptor()), spec); err != nil {
		proto.Reset(spec)
		if lenient.Unmarshal(onlySelector(outer.Spec), spec) != nil {
			proto.Reset(spec)
		}
		whole := Fault{Message: "spec: cannot be read, for the values of some of its fields"}
		if len(faults) == 0 {
			text := strings.ReplaceAll(err.Error(), "\u00a0", " ")
			whole.Message = "spec: " + strings.TrimSpace(strings.TrimPrefix(text, "proto:"))
		}
		faults = append([]Fault{whole}, faults...)
	}
	return faults
}

// onlySelector leaves of a spec what it selects.
func onlySelector(spec json.RawMessage) []byte {
	var parts struct {
		Selector json.RawMessage `json:"selector,omitempty"`
	}
	if err := json.Unmarshal(spec, &parts); err != nil {
		return nil
	}
	out, err := json.Marshal(parts)
	if err != nil {
		return nil
	}
	return out
}
