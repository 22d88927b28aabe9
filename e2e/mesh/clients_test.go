package mesh_test

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/tulle-mesh/tulle/internal/roottest"
)

const (
	siteHTTP = "site.data.svc.cluster.local:8080"
	siteGRPC = "site.data.svc.cluster.local:8081"
)

// siteObjects put a waypoint before the peers' server of HTTP and gRPC, with routes
// that leave a mark on what they routed.
const siteObjects = `apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: site-waypoint, namespace: data}
spec:
  gatewayClassName: istio-waypoint
  listeners: [{name: mesh, port: 15008, protocol: HBONE}]
---
apiVersion: v1
kind: Service
metadata: {name: site, namespace: data, labels: {istio.io/use-waypoint: site-waypoint}}
spec:
  selector: {app: webpeer}
  ipFamilyPolicy: PreferDualStack
  ports: [{name: http, port: 8080}, {name: grpc, port: 8081}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: site, namespace: data}
spec:
  parentRefs: [{group: "", kind: Service, name: site, port: 8080}]
  rules:
  - filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: x-route, value: site}]}}]
    backendRefs: [{name: site, port: 8080}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: site, namespace: data}
spec:
  parentRefs: [{group: "", kind: Service, name: site, port: 8081}]
  rules:
  - filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: x-route, value: site}]}}]
    backendRefs: [{name: site, port: 8081}]
`

// TestForeignClientsThroughAWaypoint sends through one what people point at services.
func TestForeignClientsThroughAWaypoint(t *testing.T) {
	m := start(t)
	m.apply(t, "site.yaml", siteObjects)
	eventually(t, "the route to apply", func() error {
		out, err := m.exec(t.Context(), client, "curl", "-sS", "--max-time", "5", "-o", "/dev/null", "-w", "%header{x-route}", "http://"+siteHTTP+"/")
		if err == nil && out != "site" {
			err = fmt.Errorf("x-route is %q", out)
		}
		return err
	})
	for _, tt := range []struct {
		name string
		run  func(*testing.T, *mesh)
	}{
		{"curl", curlThroughAWaypoint}, {"WebSocket", webSocketThroughAWaypoint},
		{"nghttp and h2load", nghttpThroughAWaypoint}, {"h2spec", h2specThroughAWaypoint},
		{"grpcurl", grpcurlThroughAWaypoint}, {"ghz", ghzThroughAWaypoint}, {"fortio", fortioThroughAWaypoint}, {"k6", k6ThroughAWaypoint},
		{"slowhttptest", slowClientsAtAWaypoint},
	} {
		t.Run(tt.name, func(t *testing.T) { tt.run(t, m) })
	}
}

// wants runs a command in the client's pod and looks for what its output has.
func (m *mesh) wants(t *testing.T, what string, patterns []string, args ...string) string {
	t.Helper()
	out, err := m.exec(t.Context(), client, args...)
	if err != nil {
		t.Errorf("%s: %v\n%s", what, err, out)
		return out
	}
	for _, p := range patterns {
		if !regexp.MustCompile(p).MatchString(out) {
			t.Errorf("%s: nothing in the output is like %s:\n%s", what, p, out)
		}
	}
	return out
}

func curlThroughAWaypoint(t *testing.T, m *mesh) {
	file := filepath.Join(m.root, "www", "file")
	sum, err := exec.Command("sha256sum", file).Output()
	if err != nil {
		t.Fatal(err)
	}
	hash, _, _ := strings.Cut(string(sum), " ")
	at := func(path string) string { return "http://" + siteHTTP + path }
	for _, version := range []string{"--http1.1", "--http2-prior-knowledge"} {
		curl := func(args ...string) []string {
			return append([]string{"curl", "-sS", "--max-time", "60", version}, args...)
		}
		m.wants(t, version, []string{`^GET /\?x=1 HTTP/`}, curl("-f", at("/?x=1"))...)
		m.wants(t, version+", a file of known length", []string{fmt.Sprintf("^%d %s length$", fileBytes, hash)}, curl("-f", "-T", file, at("/sink"))...)
		m.wants(t, version+", a file of unknown length", []string{fmt.Sprintf("^%d %s chunks$", fileBytes, hash)},
			"sh", "-c", strings.Join(curl("-f", "-T", "-", at("/sink")), " ")+" <"+file)
		m.wants(t, version+", a file there and back", []string{"^" + hash},
			"sh", "-c", strings.Join(curl("-f", "-T", "-", at("/echo")), " ")+" <"+file+" | sha256sum")
		m.wants(t, version+", trailers", []string{`(?i)x-sum: of the content`}, curl("-f", "-D", "-", at("/trailers"))...)
		// The answer comes though nobody reads the content and the server resets the connection, each time.
		m.wants(t, version+", refused content", []string{`^(413\n){19}413$`},
			"sh", "-c", "for i in $(seq 20); do "+strings.Join(curl("-o", "/dev/null", "-w", `'%{http_code}\n'`, "-T", file, at("/refuse")), " ")+"; done")
		// Events come as they happen: the response has no end that could be waited for.
		events := m.background(t, append([]string{client, "--"}, curl("-N", at("/events"))...)...)
		for i := range 5 {
			for _, want := range []string{fmt.Sprintf("id: %d", i), fmt.Sprintf("data: event %d", i), ""} {
				if got := events.line(t); got != want {
					t.Fatalf("%s: line %q of the events, want %q", version, got, want)
				}
			}
		}
		events.interrupt()
	}
	// The server's own 100 comes before the content goes.
	m.wants(t, "100-continue", []string{`HTTP/1.1 100 Continue`, fmt.Sprintf("(?m)^%d ", fileBytes)},
		"sh", "-c", "curl -sSv --max-time 60 -H 'expect: 100-continue' --expect100-timeout 50 -T "+file+" "+at("/sink")+" 2>&1")
	// A tunnel of a proxy that is a service of the mesh.
	m.wants(t, "CONNECT", []string{`^GET / HTTP/1.1$`}, "curl", "-sSf", "--max-time", "20", "-p", "-x", "http://"+siteHTTP, "http://127.0.0.1:8080/")
}

// webSocketScript sends messages of several sizes and kinds, and pings, one after the
// other and many at once.
const webSocketScript = `
import asyncio, os, sys, websockets
async def main():
    async with websockets.connect(sys.argv[1], max_size=1<<24, ping_interval=None) as ws:
        for size in (0, 1, 125, 126, 65535, 65536, 1 << 20):
            text = "x" * size
            await ws.send(text)
            assert await ws.recv() == text, size
        await ws.send(["frag", "men", "ts"])
        # The server answers frames, not messages.
        await ws.send("end")
        back = ""
        while not back.endswith("end"):
            back += await ws.recv()
        assert back == "fragmentsend", back
        await asyncio.wait_for(await ws.ping(), 10)
        for i in range(200):
            await ws.send(str(i))
        assert [await ws.recv() for i in range(200)] == [str(i) for i in range(200)]
    print("closed with", ws.close_code)
asyncio.run(main())
`

func webSocketThroughAWaypoint(t *testing.T, m *mesh) {
	if _, err := os.Stat("/usr/lib/python3/dist-packages/websockets"); err != nil {
		roottest.Skip(t, "needs websockets for Python; install the Debian package python3-websockets")
	}
	m.wants(t, "websockets", []string{`^closed with 1000$`}, "/usr/bin/python3", "-c", webSocketScript, "ws://"+siteHTTP+"/ws")
	// A request to upgrade that the server does not understand is an ordinary one.
	m.wants(t, "an upgrade declined", []string{`^200$`}, "curl", "-sS", "--max-time", "20", "-o", "/dev/null", "-w", "%{http_code}",
		"-H", "connection: upgrade", "-H", "upgrade: something", "http://"+siteHTTP+"/")
}

func nghttpThroughAWaypoint(t *testing.T, m *mesh) {
	roottest.Program(t, "nghttp", "nghttp2-client")
	roottest.Program(t, "h2load", "nghttp2-client")
	m.wants(t, "nghttp", []string{`:status: 200`, `x-sum: of the content`}, "nghttp", "-v", "http://"+siteHTTP+"/trailers")
	for _, args := range [][]string{
		{"-n2000", "-c8", "-m16"}, {"-n2000", "-c16", "--h1"}, {"-n200", "-c4", "-m4", "-d", filepath.Join(m.conf, "pods.yaml")},
	} {
		n := strings.TrimPrefix(args[0], "-n")
		m.wants(t, fmt.Sprint("h2load ", args), []string{n + ` succeeded, 0 failed, 0 errored`, `status codes: ` + n + ` 2xx`},
			append(append([]string{"h2load"}, args...), "http://"+siteHTTP+"/")...)
	}
}

func h2specThroughAWaypoint(t *testing.T, m *mesh) {
	report := filepath.Join(m.root, "h2spec.xml")
	name, port, _ := strings.Cut(siteHTTP, ":")
	out, err := m.exec(t.Context(), client, roottest.Tool(t, "../tools", "h2spec"), "generic", "http2", "hpack", "-h", name, "-p", port, "-o", "5", "-j", report)
	results, readErr := os.ReadFile(report)
	if readErr != nil {
		t.Fatalf("%v, %v\n%s", err, readErr, out)
	}
	var suites struct {
		Suites []struct {
			Cases []struct {
				Package   string    `xml:"package,attr"`
				ClassName string    `xml:"classname,attr"`
				Failure   string    `xml:"failure"`
				Error     string    `xml:"error"`
				Skipped   *struct{} `xml:"skipped"`
			} `xml:"testcase"`
		} `xml:"testsuite"`
	}
	if err := xml.Unmarshal(results, &suites); err != nil {
		t.Fatal(err)
	}
	ran := 0
	for _, suite := range suites.Suites {
		for _, c := range suite.Cases {
			ran++
			// The port speaks HTTP/1.1 as well: what does not begin HTTP/2 gets a 400.
			if c.ClassName == "Sends invalid connection preface" {
				continue
			}
			if c.Failure != "" || c.Error != "" || c.Skipped != nil {
				t.Errorf("%s %s:\n%s%s", c.Package, c.ClassName, c.Failure, c.Error)
			}
		}
	}
	if ran < 145 {
		t.Errorf("h2spec ran %d cases, want all of them (145 or more)\n%s", ran, out)
	}
}

func grpcurlThroughAWaypoint(t *testing.T, m *mesh) {
	grpcurl := roottest.Tool(t, "../tools/clients", "grpcurl")
	call := func(data, method string, args ...string) []string {
		return append(append([]string{grpcurl, "-plaintext", "-v"}, args...), "-d", data, siteGRPC, "grpc.testing.TestService/"+method)
	}
	// Reflection is a stream in both directions.
	m.wants(t, "list", []string{`grpc\.testing\.TestService`}, grpcurl, "-plaintext", siteGRPC, "list")
	m.wants(t, "unary", []string{`x-route: site`, `x-trailer: there`, `"payload"`}, call(`{"response_size": 100}`, "UnaryCall")...)
	m.wants(t, "large", []string{`x-trailer: there`}, call(`{"response_size": 3000000}`, "UnaryCall", "-max-msg-sz", "4000000")...)
	m.wants(t, "server streaming", []string{`received 3 responses`},
		call(`{"response_parameters": [{"size": 1}, {"size": 70000, "interval_us": 1000}, {"size": 3}]}`, "StreamingOutputCall")...)
	m.wants(t, "client streaming", []string{`"aggregatedPayloadSize": 5`, `Sent 2 requests and received 1 response`},
		call(`{"payload": {"body": "AAAA"}} {"payload": {"body": "AAA="}}`, "StreamingInputCall")...)
	m.wants(t, "both", []string{`Sent 2 requests and received 3 responses`},
		call(`{"response_parameters": [{"size": 1}, {"size": 2}]} {"response_parameters": [{"size": 3}]}`, "FullDuplexCall")...)
	for _, tt := range []struct {
		name, want string
		args       []string
	}{
		{"a status of the server", `Code: FailedPrecondition\s+Message: not now`, call(`{"response_status": {"code": 9, "message": "not now"}}`, "UnaryCall")},
		{"a status within a stream", `Code: DataLoss`, call(`{"response_status": {"code": 15, "message": "lost"}}`, "FullDuplexCall")},
		{"a deadline", `Code: DeadlineExceeded`, call(`{"response_parameters": [{"size": 1, "interval_us": 30000000}]}`, "StreamingOutputCall", "-max-time", "0.5")},
		{"nobody's method", `Code: Unimplemented`, call(`{}`, "UnimplementedCall")},
	} {
		out, err := m.exec(t.Context(), client, append([]string{"sh", "-c", `"$@" 2>&1`, "sh"}, tt.args...)...)
		if err == nil || !regexp.MustCompile(tt.want).MatchString(out) {
			t.Errorf("%s: %v, and nothing in the output is like %s:\n%s", tt.name, err, tt.want, out)
		}
	}
}

func ghzThroughAWaypoint(t *testing.T, m *mesh) {
	ghz := roottest.Tool(t, "../tools/clients", "ghz")
	for method, data := range map[string]string{
		"UnaryCall":           `{"response_size": 1024, "payload": {"body": "AAAA"}}`,
		"StreamingOutputCall": `{"response_parameters": [{"size": 10}, {"size": 10}]}`,
		"StreamingInputCall":  `[{"payload": {"body": "AAAA"}}, {"payload": {"body": "AAAA"}}]`,
		"FullDuplexCall":      `[{"response_parameters": [{"size": 10}]}, {"response_parameters": [{"size": 10}]}]`,
	} {
		out, err := m.exec(t.Context(), client, ghz, "--insecure", "--call", "grpc.testing.TestService/"+method, "-d", data,
			"-n", "400", "-c", "20", "--connections", "4", "-O", "json", siteGRPC)
		if err != nil {
			t.Errorf("%s: %v\n%s", method, err, out)
			continue
		}
		var report struct {
			Count                  int
			StatusCodeDistribution map[string]int
			ErrorDistribution      map[string]int
		}
		if err := json.Unmarshal([]byte(out), &report); err != nil {
			t.Errorf("%s: %v\n%s", method, err, out)
		} else if report.Count != 400 || report.StatusCodeDistribution["OK"] != 400 {
			t.Errorf("%s: %+v", method, report)
		}
	}
}

func fortioThroughAWaypoint(t *testing.T, m *mesh) {
	fortio := roottest.Tool(t, "../tools/clients", "fortio")
	for _, args := range [][]string{
		{"-keepalive=false"}, {"-stdclient"}, {"-stdclient", "-h2"}, {"-payload-size", "1000"},
	} {
		out := m.wants(t, fmt.Sprint("fortio ", args), nil,
			append(append([]string{"sh", "-c", `"$@" 2>&1`, "sh", fortio, "load", "-quiet", "-qps", "0", "-c", "8", "-n", "800"}, args...), "http://"+siteHTTP+"/")...)
		found := regexp.MustCompile(`(?m)^Code (\d+) : (\d+)`).FindAllStringSubmatch(out, -1)
		if len(found) != 1 || found[0][1] != "200" || found[0][2] != "800" {
			t.Errorf("fortio %v: codes %v in\n%s", args, found, out)
		}
	}
}

// k6Script has users that talk HTTP, WebSocket and gRPC, and one check of each answer.
const k6Script = `
import http from 'k6/http';
import ws from 'k6/ws';
import grpc from 'k6/net/grpc';
import { check } from 'k6';

export const options = {
  vus: 5, iterations: 100, discardResponseBodies: false,
  thresholds: { checks: ['rate==1'], 'checks{kind:http}': ['rate==1'], 'checks{kind:ws}': ['rate==1'], 'checks{kind:grpc}': ['rate==1'] },
};
const client = new grpc.Client();

export default function () {
  const r = http.get('http://' + __ENV.HTTP + '/?k6=' + __ITER);
  check(r, { 'HTTP': (r) => r.status === 200 && r.headers['X-Route'] === 'site' && r.body.startsWith('GET /?k6=') }, { kind: 'http' });

  let got = [];
  const res = ws.connect('ws://' + __ENV.HTTP + '/ws', {}, (socket) => {
    socket.on('open', () => { for (let i = 0; i < 10; i++) socket.send('message ' + i); });
    socket.on('message', (m) => { got.push(m); if (got.length === 10) socket.close(); });
    socket.setTimeout(() => socket.close(), 10000);
  });
  check(res, { 'WebSocket': (r) => r.status === 101 && got.length === 10 && got[9] === 'message 9' }, { kind: 'ws' });

  client.connect(__ENV.GRPC, { plaintext: true, reflect: true });
  const a = client.invoke('grpc.testing.TestService/UnaryCall', { response_size: 100 });
  check(a, { 'gRPC': (a) => a.status === grpc.StatusOK && a.trailers['x-trailer'][0] === 'there' }, { kind: 'grpc' });
  const b = client.invoke('grpc.testing.TestService/UnaryCall', { response_status: { code: 5, message: 'none' } });
  check(b, { 'gRPC status': (b) => b.status === grpc.StatusNotFound }, { kind: 'grpc' });
  client.close();
}
`

func k6ThroughAWaypoint(t *testing.T, m *mesh) {
	k6 := roottest.Tool(t, "../tools/k6", "k6")
	script := filepath.Join(m.root, "k6.js")
	if err := os.WriteFile(script, []byte(k6Script), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := m.exec(t.Context(), client, "env", "HTTP="+siteHTTP, "GRPC="+siteGRPC, "K6_NO_USAGE_REPORT=true", "HOME="+m.root,
		k6, "run", "--quiet", "--no-color", script)
	if err != nil || !strings.Contains(out, "checks_succeeded...: 100.00% 400 out of 400") {
		t.Errorf("%v\n%s", err, out)
	}
}

// slowClientsAtAWaypoint: clients that are slow on purpose, each with a connection of
// its own, do not keep others from being served.
func slowClientsAtAWaypoint(t *testing.T, m *mesh) {
	slow := roottest.Program(t, "slowhttptest", "slowhttptest")
	for _, mode := range [][]string{
		{"-H", "-i", "1"}, {"-B", "-i", "1", "-s", "100000"}, {"-X", "-n", "1", "-w", "10", "-y", "20", "-z", "5"},
	} {
		attack := m.background(t, append([]string{client, "--", slow, "-u", "http://" + siteHTTP + "/", "-c", "400", "-r", "400", "-l", "2", "-p", "2"}, mode...)...)
		for i := range 10 {
			out, err := m.exec(t.Context(), other, "curl", "-sS", "--max-time", "10", "-o", "/dev/null", "-w", "%{http_code}", "http://"+siteHTTP+"/"+strconv.Itoa(i))
			if err != nil || out != "404" {
				t.Errorf("%v, request %d: %q, %v", mode, i, out, err)
			}
		}
		attack.drain()
	}
}
