// Package report tells operators what a waypoint does with requests: Istio's metrics
// with all of their labels, access lines, spans of traces, and, to those who look right
// now, live requests and a summary of services and routes.
//
// Report is called once for every request, on its goroutine, after the response. It
// resolves labels once per pair of peers and outcome, counts with atomic additions, and
// hands lines and spans to goroutines of their own, whose queues are bounded: what does
// not fit is dropped and counted. A Reporter owns those goroutines; Close ends them.
//
//	r, err := report.New(report.Config{Store: store, Registerer: registry, Output: os.Stderr})
//	defer r.Close()
//	client.Memo = r.Remember(client, baggage)
//	forward.New(forward.Config{Report: r.Report, …})
package report
