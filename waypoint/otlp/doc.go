// Package otlp sends spans and log records to collectors, by the OpenTelemetry protocol
// over gRPC (https://opentelemetry.io/docs/specs/otlp/).
//
// What is to be sent is queued without waiting; one goroutine an Exporter sends it in
// batches. The queue is bounded: what does not fit is dropped and counted, and so is
// what a collector does not take after some tries. Close sends what is queued, in a
// bounded time.
//
// The connection is plain HTTP/2, as meshes' collectors are reached inside the cluster.
//
//	spans := otlp.NewSpans(otlp.Config{Addr: "collector:4317", Resource: resource})
//	defer spans.Close()
//	spans.Add(span)
package otlp
