package main

import (
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
)

// Names of the fields that the suite reads: sigs.k8s.io/gateway-api/conformance,
// utils/echo/parse.go.
const (
	fieldStatusCode     = "StatusCode"
	fieldServicePort    = "ServicePort"
	fieldHost           = "Host"
	fieldHostname       = "Hostname"
	fieldURL            = "URL"
	fieldMethod         = "Method"
	fieldProto          = "Proto"
	fieldALPN           = "Alpn"
	fieldIP             = "IP"
	fieldRequestHeader  = "RequestHeader"
	fieldResponseHeader = "ResponseHeader"
	fieldEcho           = "Echo"
	fieldRequestURL     = "Url"
	fieldSentHeader     = "Header"
)

// fields collects "name=value" lines.
type fields struct{ strings.Builder }

func (f *fields) add(name, value string) {
	// A value of several lines would be read as further fields.
	value = strings.NewReplacer("\r", " ", "\n", " ").Replace(value)
	fmt.Fprintf(f, "%s=%s\n", name, value)
}

// addHeader adds one line for each value, names in order.
func (f *fields) addHeader(name string, h http.Header) {
	for _, key := range slices.Sorted(func(yield func(string) bool) {
		for k := range h {
			if !yield(k) {
				return
			}
		}
	}) {
		for _, value := range h[key] {
			f.add(name, key+":"+value)
		}
	}
}

// host is the address of a peer without its port.
func host(addr string) string {
	h, _, err := net.SplitHostPort(addr)
	if err != nil {
		return addr
	}
	return h
}
