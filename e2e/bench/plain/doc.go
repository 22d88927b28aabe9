// Package plain runs the waypoint's own code, its codecs, forwarder, routes and
// upstreams, between plain listeners and plain endpoints, so that its figures can stand
// beside those of proxies that know no tunnels. It is for measuring alone: a waypoint
// that takes requests without knowing whose they are would enforce nothing.
package plain
