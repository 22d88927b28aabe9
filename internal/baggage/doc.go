// Package baggage writes and reads the baggage header of HBONE: what one node
// proxy tells the other about a workload, for telemetry.
//
// The header has the form of W3C Baggage with the keys of OpenTelemetry's
// semantic conventions. It is a claim of the peer and never a reason to permit
// anything; identities come from certificates.
//
//	b := baggage.Baggage{Cluster: "Kubernetes", Namespace: "shop", WorkloadKind: "deployment", WorkloadName: "web"}
//	header := b.String()
//	b, err := baggage.Parse(header)
package baggage
