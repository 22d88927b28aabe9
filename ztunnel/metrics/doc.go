// Package metrics counts the connections of a node proxy in the istio_tcp_*
// families, with the labels that Istio's dashboards expect.
//
// It owns the series: one per pair of peers as the labels tell them apart, made
// on first use, bounded in number, and forgotten when the pair has been silent
// for long. Bytes of live connections are read from their counters when
// somebody scrapes, so a connection that lasts for days is seen while it lives
// and costs nothing per byte.
//
//	m := metrics.New(metrics.Config{Registerer: registry})
//	c := m.Open(metrics.Peers{Reporter: metrics.Source, Source: src, Destination: dst}, &fromClient, &fromServer)
//	defer c.Close(metrics.FlagNone)
package metrics
