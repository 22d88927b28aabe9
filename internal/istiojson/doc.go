// Package istiojson reads the specs of Istio's objects in the forms that its documents
// and API server have, where protobuf's own JSON is narrower: durations as "1h" and
// "50ms". It decodes nothing itself:
//
//	err := protojson.Unmarshal(istiojson.Seconds(spec, desc), message)
package istiojson
