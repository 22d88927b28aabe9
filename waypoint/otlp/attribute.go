package otlp

import (
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
)

var scope = &commonpb.InstrumentationScope{Name: Scope}

// Value returns a text.
func Value(s string) *commonpb.AnyValue {
	return &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: s}}
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
