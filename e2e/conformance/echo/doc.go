// Command echo is what the conformance suite runs in its pods: a server that
// answers requests with what it saw of them, and, under the name client, a client
// that prints what came back. It takes the place of the image
// registry.k8s.io/gateway-api/echo-advanced, whose flags and output it has as far
// as the suite uses them; the suite reads that output line by line.
//
// The server speaks HTTP/1.1 and HTTP/2 without TLS (by prior knowledge) on every
// --port, both within TLS on those that --tls names, gRPC on every --grpc and
// bytes on every --tcp:
//
//	echo --port=8080 --port=8443 --tls=8443 --crt=/cert.crt --key=/cert.key --grpc=7070 --tcp=9090
//
// The client takes a URL of the scheme http, https, grpc or tcp:
//
//	client http://echo/path --method=GET -H name:value --count=500
//
// It prints one block of lines for each response, with a blank line behind it, and
// fails if a request got no response. It follows no redirects.
package main
