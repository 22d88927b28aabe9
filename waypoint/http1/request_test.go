package http1_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/tulle-mesh/tulle/waypoint/http1"
	"github.com/tulle-mesh/tulle/waypoint/message"
)

// received returns what a server reads in, one line for each request, and the status
// of a refusal in the end.
func received(t *testing.T, in string) string {
	t.Helper()
	var got []string
	s := &http1.Server{Handler: func(_ context.Context, x message.Exchange) {
		got = append(got, describe(x))
		_ = respond(x, 400, "")
	}}
	_, err := exchangeRaw(t, s, in)
	var protocol *message.ProtocolError
	var reset *message.ResetError
	switch {
	case errors.As(err, &protocol):
		got = append(got, fmt.Sprint("refused ", protocol.Status))
	case errors.As(err, &reset):
		got = append(got, "broken off")
	case err != nil:
		got = append(got, err.Error())
	}
	return strings.Join(got, "\n")
}

// The same requests go to nginx and HAProxy in peers_test.go, which must not read
// any of them in another way.
var goodRequests = []struct{ name, in, want string }{
	{"plain", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", `GET http a [/] length=0 content=""`},
	{"normal form", "GET /%61/../b%2fc?x=%2e HTTP/1.1\r\nHOST:  A.B:80 \t\r\nX-Y:\tz \r\n\r\n",
		`GET http a.b:80 [/b%2Fc?x=%2e] x-y="z" length=0 content=""`},
	{"empty value", "GET / HTTP/1.1\r\nHost: a\r\nX:\r\nY: \t \r\n\r\n", `GET http a [/] x="" y="" length=0 content=""`},
	{"repeated fields", "GET / HTTP/1.1\r\nhost:a\r\nx:1\r\nX:2\r\n\r\n", `GET http a [/] x="1" x="2" length=0 content=""`},
	{"empty query", "GET /? HTTP/1.1\r\nHost: a\r\n\r\n", `GET http a [/?] length=0 content=""`},
	{"absolute form", "GET http://A/b?c HTTP/1.1\r\nHost: a\r\n\r\n", `GET http a [/b?c] length=0 content=""`},
	{"absolute form without path", "GET http://a?c HTTP/1.1\r\nHost: a\r\n\r\n", `GET http a [/?c] length=0 content=""`},
	{"asterisk", "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", `OPTIONS http a [*] length=0 content=""`},
	{"absolute asterisk", "OPTIONS http://a HTTP/1.1\r\nHost: a\r\n\r\n", `OPTIONS http a [*] length=0 content=""`},
	{"own method", "x-Do! / HTTP/1.1\r\nHost: a\r\n\r\n", `x-Do! http a [/] length=0 content=""`},
	{"length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", `POST http a [/] length=3 content="abc"`},
	{"zero length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", `POST http a [/] length=0 content=""`},
	{"chunked", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n00A\r\n0123456789\r\n0\r\n\r\n",
		`POST http a [/] length=-1 content="abc0123456789"`},
	{"chunked in capitals", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n0\r\n\r\n", `POST http a [/] length=-1 content=""`},
	{"chunk extensions", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;a=b;c\r\na\r\n0;x\r\n\r\n",
		`POST http a [/] length=-1 content="a"`},
	{"trailers", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX-A: 1\r\nx-b:2\r\n\r\n",
		`POST http a [/] length=-1 content="a" trailer x-a="1" trailer x-b="2"`},
	{"several on one connection", "POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\naGET /2 HTTP/1.1\r\nHost: b\r\n\r\n",
		"POST http a [/1] length=1 content=\"a\"\nGET http b [/2] length=0 content=\"\""},
	{"empty line between", "POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\na\r\nGET /2 HTTP/1.1\r\nHost: b\r\n\r\n",
		"POST http a [/1] length=1 content=\"a\"\nGET http b [/2] length=0 content=\"\""},
	{"close", "GET /1 HTTP/1.1\r\nHost: a\r\nConnection: x, Close\r\n\r\nGET /2 HTTP/1.1\r\nHost: b\r\n\r\n",
		`GET http a [/1] length=0 content=""`},
	{"HTTP/1.0", "GET /1 HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /2 HTTP/1.0\r\n\r\n", `GET http  [/1] length=0 content=""`},
	{"HTTP/1.0 with Host", "GET / HTTP/1.0\r\nHost: a\r\n\r\n", `GET http a [/] length=0 content=""`},
	{"fields of the connection", "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, x-a, TE\r\nX-A: 1\r\nX-B: 2\r\nKeep-Alive: 3\r\n" +
		"Proxy-Connection: x-b\r\nTE: trailers\r\n\r\n", `GET http a [/] x-b="2" te="trailers" length=0 content=""`},
	{"Connection names what frames", "POST / HTTP/1.1\r\nHost: a\r\nConnection: content-length, host, transfer-encoding, x-a\r\nContent-Length: 3\r\nX-A: 1\r\n\r\nabc",
		`POST http a [/] length=3 content="abc"`},
	{"other TE", "GET / HTTP/1.1\r\nHost: a\r\nTE: gzip, trailers\r\n\r\n", `GET http a [/] length=0 content=""`},
	{"upgrade", "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n\r\n",
		`GET http a [/] protocol=websocket length=0 content=""`},
	{"upgrade that Connection does not name", "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n", `GET http a [/] length=0 content=""`},
	{"upgrade to HTTP/2", "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
		`GET http a [/] length=0 content=""`},
	{"several upgrades", "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket, h2c\r\n\r\n", `GET http a [/] length=0 content=""`},
	{"upgrade with content", "POST / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 1\r\n\r\na",
		`POST http a [/] length=1 content="a"`},
	{"octets beyond ASCII in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: \xc3\xa9\xff\r\n\r\n", `GET http a [/] x="é\xff" length=0 content=""`},
	{"IPv6", "GET / HTTP/1.1\r\nHost: [0::1]:80\r\n\r\n", `GET http [::1]:80 [/] length=0 content=""`},
	{"CONNECT", "CONNECT A:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", `CONNECT http a:443 [] length=0 content=""`},
}

func TestRequestsAreReadInNormalForm(t *testing.T) {
	for _, c := range goodRequests {
		t.Run(c.name, func(t *testing.T) {
			if got := received(t, c.in); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

// manyFields returns n fields.
func manyFields(n int) string { return strings.Repeat("x: y\r\n", n) }

var badRequests = []struct {
	name, in string
	status   int
}{
	// What frames the content.
	{"length and chunked", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
	{"chunked and length", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n", 400},
	{"two equal lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc", 400},
	{"two lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc", 400},
	{"list of lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3, 3\r\n\r\nabc", 400},
	{"signed length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabc", 400},
	{"negative length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -3\r\n\r\nabc", 400},
	{"length with leading zero", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 010\r\n\r\nabc", 400},
	{"hexadecimal length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x3\r\n\r\nabc", 400},
	{"empty length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\nabc", 400},
	{"huge length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551619\r\n\r\nabc", 400},
	{"length with underscore", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1_0\r\n\r\nabc", 400},
	{"unknown coding", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501},
	{"two codings", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501},
	{"chunked twice", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 501},
	{"two fields with codings", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
	{"hidden coding", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501},
	{"coding with parameter", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked;a\r\n\r\n0\r\n\r\n", 501},
	{"coding with vertical tab", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", 400},
	{"empty coding", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\r\n0\r\n\r\n", 501},
	{"identity", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\nContent-Length: 1\r\n\r\na", 501},
	{"chunked in HTTP/1.0", "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
	{"CONNECT with content", "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\nContent-Length: 1\r\n\r\na", 400},

	// Lines and fields.
	{"bare line feeds", "GET / HTTP/1.1\nHost: a\n\n", 400},
	{"bare line feed after the request line", "GET / HTTP/1.1\nHost: a\r\n\r\n", 400},
	{"bare line feed after a field", "GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n", 400},
	{"bare line feed before the end", "GET / HTTP/1.1\r\nHost: a\r\n\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n", 400},
	{"bare carriage return", "GET / HTTP/1.1\r\nHost: a\rX: y\r\n\r\n", 400},
	{"carriage return before CRLF", "GET / HTTP/1.1\r\nHost: a\r\r\n\r\n", 400},
	{"bare carriage return in the request line", "GET / HTTP/1.1\rHost: a\r\n\r\n", 400},
	{"folded field", "GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n z\r\n\r\n", 400},
	{"folded first field", "GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400},
	{"space before colon", "GET / HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n", 400},
	{"tab before colon", "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n", 400},
	{"no colon", "GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n", 400},
	{"no name", "GET / HTTP/1.1\r\nHost: a\r\n: y\r\n\r\n", 400},
	{"invalid name", "GET / HTTP/1.1\r\nHost: a\r\nX[: y\r\n\r\n", 400},
	{"name beyond ASCII", "GET / HTTP/1.1\r\nHost: a\r\nX\xe9: y\r\n\r\n", 400},
	{"NUL in a name", "GET / HTTP/1.1\r\nHost: a\r\nX\x00: y\r\n\r\n", 400},
	{"NUL in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: a\x00b\r\n\r\n", 400},
	{"control in a long value", "GET / HTTP/1.1\r\nHost: a\r\nX: 0123456789\x010123456789\r\n\r\n", 400},
	{"DEL in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: a\x7f\r\n\r\n", 400},
	{"empty lines first", "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400},
	{"line feed first", "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400},
	{"too many options", "GET / HTTP/1.1\r\nHost: a\r\nConnection: " + strings.Repeat("x,", 33) + "\r\n\r\n", 400},
	{"too many fields", "GET / HTTP/1.1\r\nHost: a\r\n" + manyFields(100) + "\r\n", 431},
	{"too large a head", "GET / HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("y", 70<<10) + "\r\n\r\n", 431},

	// The request line.
	{"too long a target", "GET /" + strings.Repeat("y", 70<<10) + " HTTP/1.1\r\nHost: a\r\n\r\n", 414},
	{"no version", "GET /\r\nHost: a\r\n\r\n", 400},
	{"HTTP/0.9", "GET / HTTP/0.9\r\nHost: a\r\n\r\n", 505},
	{"HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505},
	{"HTTP/1.2", "GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505},
	{"HTTP/1.10", "GET / HTTP/1.10\r\nHost: a\r\n\r\n", 400},
	{"version in lower case", "GET / http/1.1\r\nHost: a\r\n\r\n", 400},
	{"two spaces", "GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400},
	{"two spaces before the version", "GET /  HTTP/1.1\r\nHost: a\r\n\r\n", 400},
	{"tab for a space", "GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", 400},
	{"space at the end", "GET / HTTP/1.1 \r\nHost: a\r\n\r\n", 400},
	{"space in the target", "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400},
	{"space first", " GET / HTTP/1.1\r\nHost: a\r\n\r\n", 400},
	{"no method", "/ HTTP/1.1\r\nHost: a\r\n\r\n", 400},
	{"invalid method", "G@T / HTTP/1.1\r\nHost: a\r\n\r\n", 400},
	{"long method", strings.Repeat("G", 33) + " / HTTP/1.1\r\nHost: a\r\n\r\n", 400},
	{"relative target", "GET a HTTP/1.1\r\nHost: a\r\n\r\n", 400},
	{"asterisk in GET", "GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400},
	{"fragment", "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", 400},
	{"backslash", "GET /a\\b HTTP/1.1\r\nHost: a\r\n\r\n", 400},
	{"NUL in the path", "GET /a%00 HTTP/1.1\r\nHost: a\r\n\r\n", 400},
	{"raw NUL in the path", "GET /a\x00 HTTP/1.1\r\nHost: a\r\n\r\n", 400},
	{"octets beyond ASCII in the path", "GET /\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n", 400},
	{"octets beyond ASCII in the query", "GET /?\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n", 400},
	{"CONNECT without port", "CONNECT a HTTP/1.1\r\nHost: a\r\n\r\n", 400},
	{"CONNECT with a path", "CONNECT /a HTTP/1.1\r\nHost: a\r\n\r\n", 400},
	{"CONNECT to another host", "CONNECT b:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", 400},

	// The host.
	{"no Host", "GET / HTTP/1.1\r\n\r\n", 400},
	{"empty Host", "GET / HTTP/1.1\r\nHost:\r\n\r\n", 400},
	{"two Hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400},
	{"two equal Hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400},
	{"two Hosts in HTTP/1.0", "GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", 400},
	{"invalid Host", "GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400},
	{"list of Hosts", "GET / HTTP/1.1\r\nHost: a,b\r\n\r\n", 400},
	{"Host with user", "GET / HTTP/1.1\r\nHost: a@b\r\n\r\n", 400},
	{"Host with path", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400},
	{"another host in the target", "GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", 400},
	{"another port in the target", "GET http://a:81/ HTTP/1.1\r\nHost: a\r\n\r\n", 400},
	{"user in the target", "GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400},
	{"another scheme", "GET https://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400},
	{"unknown scheme", "GET gopher://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400},

	{"expectation", "POST / HTTP/1.1\r\nHost: a\r\nExpect: 200-ok\r\nContent-Length: 1\r\n\r\na", 417},
}

func TestAmbiguousRequestsAreRefused(t *testing.T) {
	for _, c := range badRequests {
		t.Run(c.name, func(t *testing.T) {
			s := &http1.Server{Handler: func(_ context.Context, x message.Exchange) {
				t.Errorf("taken as %s", describe(x))
				_ = respond(x, 200, "")
			}}
			out, err := exchangeRaw(t, s, c.in)
			var protocol *message.ProtocolError
			if !errors.As(err, &protocol) || protocol.Status != c.status {
				t.Errorf("Serve returns %v, want the status %d", err, c.status)
			}
			if !strings.HasPrefix(out, fmt.Sprintf("HTTP/1.1 %d ", c.status)) || !strings.Contains(out, "\r\nconnection: close\r\n") {
				t.Errorf("the client got %q", out)
			}
		})
	}
}

var badContents = []struct{ name, in string }{
	{"no size", "\r\nabc\r\n0\r\n\r\n"},
	{"space before the size", " 3\r\nabc\r\n0\r\n\r\n"},
	{"space after the size", "3 \r\nabc\r\n0\r\n\r\n"},
	{"space before an extension", "3 ;a\r\nabc\r\n0\r\n\r\n"},
	{"prefix", "0x3\r\nabc\r\n0\r\n\r\n"},
	{"sign", "+3\r\nabc\r\n0\r\n\r\n"},
	{"negative", "-3\r\nabc\r\n0\r\n\r\n"},
	{"no digit", "g\r\nabc\r\n0\r\n\r\n"},
	{"underscore", "0_3\r\nabc\r\n0\r\n\r\n"},
	{"too large", "fffffffffffffffff3\r\nabc\r\n0\r\n\r\n"},
	{"too many zeros", "0000000000000003\r\nabc\r\n0\r\n\r\n"},
	{"line feed after the size", "3\nabc\r\n0\r\n\r\n"},
	{"carriage return after the size", "3\rabc\r\n0\r\n\r\n"},
	{"line feed in an extension", "3;a\nabc\r\n0\r\n\r\n"},
	{"carriage return in an extension", "3;a\rb\r\nabc\r\n0\r\n\r\n"},
	{"control in an extension", "3;a\x01\r\nabc\r\n0\r\n\r\n"},
	{"too long an extension", "3;" + strings.Repeat("a", 300) + "\r\nabc\r\n0\r\n\r\n"},
	{"too many extensions", strings.Repeat("1;"+strings.Repeat("a", 200)+"\r\na\r\n", 30) + "0\r\n\r\n"},
	{"chunk too long", "3\r\nabcd\r\n0\r\n\r\n"},
	{"chunk too short", "3\r\nab\r\n0\r\n\r\n"},
	{"line feed after the data", "3\r\nabc\n0\r\n\r\n"},
	{"carriage return after the data", "3\r\nabc\r0\r\n\r\n"},
	{"line feed at the end", "3\r\nabc\r\n0\n\n"},
	{"bare end", "3\r\nabc\r\n0\r\n\n"},
	{"line feed in the trailers", "3\r\nabc\r\n0\r\nx: y\n\r\n"},
	{"folded trailer", "3\r\nabc\r\n0\r\nx: y\r\n z\r\n\r\n"},
	{"length in the trailers", "3\r\nabc\r\n0\r\ncontent-length: 3\r\n\r\n"},
	{"coding in the trailers", "3\r\nabc\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n"},
	{"host in the trailers", "3\r\nabc\r\n0\r\nhost: b\r\n\r\n"},
	{"too many trailers", "3\r\nabc\r\n0\r\n" + manyFields(101) + "\r\n"},
	{"too large trailers", "3\r\nabc\r\n0\r\nx: " + strings.Repeat("y", 20<<10) + "\r\n\r\n"},
}

func TestWronglyFramedContentIsNeverWhole(t *testing.T) {
	for _, c := range badContents {
		t.Run(c.name, func(t *testing.T) {
			in := "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + c.in + "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
			requests := 0
			s := &http1.Server{Handler: func(_ context.Context, x message.Exchange) {
				requests++
				var protocol *message.ProtocolError
				for buf := make([]byte, 100); ; {
					_, err := x.Body().Read(buf)
					if errors.As(err, &protocol) {
						break
					}
					if err != nil {
						t.Errorf("reading ends with %v", err)
						break
					}
				}
				_ = respond(x, 400, "")
			}}
			out, _ := exchangeRaw(t, s, in)
			if requests != 1 || strings.Count(out, "HTTP/1.1") != 1 {
				t.Errorf("%d requests, answered with %q", requests, out)
			}
		})
	}
}

func TestTruncatedRequests(t *testing.T) {
	for _, c := range []string{
		"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
		"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x\r\nabc\r\n0\r\nx: y\r\n\r\n",
	} {
		for n := 1; n < len(c); n++ {
			got := received(t, c[:n])
			if !strings.Contains(got, "broken off") && !strings.Contains(got, "error=reset") {
				t.Errorf("%q was taken as %s", c[:n], got)
			}
		}
	}
}

func TestRequestsInSmallPieces(t *testing.T) {
	var all strings.Builder
	var want []string
	for _, c := range goodRequests {
		if !strings.Contains(c.in, "onnection: x, Close") && !strings.Contains(c.in, "HTTP/1.0") && !strings.Contains(c.in, "CONNECT") {
			all.WriteString(c.in)
			want = append(want, c.want)
		}
	}
	client, _ := serve(t, &http1.Server{Handler: func(_ context.Context, x message.Exchange) {
		_ = respond(x, 200, describe(x)+"\n")
	}})
	go func() {
		for _, b := range []byte(all.String()) {
			if _, err := client.Write([]byte{b}); err != nil {
				return
			}
		}
		_ = client.CloseWrite()
	}()
	var got strings.Builder
	buf := make([]byte, 4096)
	for {
		n, err := client.Read(buf)
		got.Write(buf[:n])
		if err != nil {
			break
		}
	}
	var lines []string
	for line := range strings.SplitSeq(got.String(), "\n") {
		if strings.Contains(line, " content=") {
			lines = append(lines, line)
		}
	}
	if strings.Join(lines, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(lines, "\n"), strings.Join(want, "\n"))
	}
}
