// Package measure runs the measures on one variant: it drives the load, and
// reads from /proc what the proxies spent meanwhile.
package measure
