package otlp

import (
	"strings"
	"unicode/utf8"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
)

var scope = &commonpb.InstrumentationScope{Name: Scope}

// Value returns a text.
func Value(s string) *commonpb.AnyValue {
	return &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: Valid(s)}}
}

// Valid makes a text one that protobuf's strings take: one that is not would lose the
// batch that it is in, and clients may send any octets.
func Valid(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	return strings.ToValidUTF8(s, "\ufffd")
}

// Text returns an attribute with a text.
func Text(key, value string) *commonpb.KeyValue {
	return &commonpb.KeyValue{Key: key, Value: Value(value)}
}

// Int returns an attribute with a number.
func Int(key string, value int64) *commonpb.KeyValue {
	return &commonpb.KeyValue{Key: key, Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_IntValue{IntValue: value}}}
}

// Texts appends those of the pairs of keys and texts that are not empty.
func Texts(list []*commonpb.KeyValue, pairs ...string) []*commonpb.KeyValue {
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			list = append(list, Text(pairs[i], pairs[i+1]))
		}
	}
	return list
}
