package cni_test

import (
	"bytes"
	"encoding/json"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/tulle-mesh/tulle/ztunnel/agent/cni"
)

func TestMain(m *testing.M) {
	// The test binary is the plugin, too.
	if cni.Called(os.Getenv) {
		os.Exit(cni.Main("about"))
	}
	goleak.VerifyTestMain(m)
}

// prevResult has fields that only a later version knows, and spaces that a
// careful writer would not leave.
const prevResult = `{"cniVersion": "1.0.0",  "interfaces":[{"name":"eth0"}], "ips":[{"address":"10.244.1.7/24"},{"address":"fd00:244:1::7/64"}], "future": 1}`

// agent answers the plugin with code and body, and keeps what it was asked.
type agent struct {
	socket string
	asked  []string
	last   cni.Request
}

func newAgent(t *testing.T, code int, body string) *agent {
	t.Helper()
	a := &agent{socket: filepath.Join(t.TempDir(), "s")}
	ln, err := net.Listen("unix", a.socket)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q, err := cni.Decode(r.Body)
		if err != nil {
			t.Error(err)
		}
		a.asked, a.last = append(a.asked, r.Method+" "+r.URL.Path), q
		w.WriteHeader(code)
		w.Write([]byte(body))
	})}
	go func() { defer close(done); srv.Serve(ln) }()
	t.Cleanup(func() { srv.Close(); <-done })
	return a
}

// call runs the plugin as a runtime does and returns its output; ok tells whether
// it exited with 0.
func call(t *testing.T, command, conf, args string) (output string, ok bool) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = []string{
		"CNI_COMMAND=" + command, "CNI_CONTAINERID=c1", "CNI_NETNS=/var/run/netns/cni-1", "CNI_IFNAME=eth0",
		"CNI_PATH=/opt/cni/bin", "CNI_ARGS=" + args,
		"GORACE=atexit_sleep_ms=10", // a program with the race detector takes a second to exit otherwise
	}
	cmd.Stdin = strings.NewReader(conf)
	var out bytes.Buffer
	cmd.Stdout = &out
	cmd.Stderr = os.Stderr
	err = cmd.Run()
	return out.String(), err == nil
}

const podArgs = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0;K8S_POD_INFRA_CONTAINER_ID=c1;K8S_POD_UID=u-1"

func conf(version, socket, prev string) string {
	s := `{"cniVersion":"` + version + `","name":"kp","type":"tulle-cni","agentSocket":"` + socket + `","excludeNamespaces":["kube-system"]`
	if prev != "" {
		s += `,"prevResult":` + prev
	}
	return s + "}"
}

func TestAddAsksTheAgentAndPassesTheResultOn(t *testing.T) {
	for _, version := range []string{"0.3.1", "0.4.0", "1.0.0", "1.1.0"} {
		a := newAgent(t, http.StatusOK, `{"enrolled":true,"reason":"label"}`)
		out, ok := call(t, "ADD", conf(version, a.socket, prevResult), podArgs)
		if !ok || out != prevResult {
			t.Errorf("%s: %v %s", version, ok, out)
		}
		want := cni.Request{
			ContainerID: "c1", IfName: "eth0", Netns: "/var/run/netns/cni-1", Namespace: "shop", Name: "web-0", UID: "u-1",
			Addresses: []netip.Addr{netip.MustParseAddr("10.244.1.7"), netip.MustParseAddr("fd00:244:1::7")},
		}
		if len(a.asked) != 1 || a.asked[0] != "POST /v1/cni/add" || !reflect.DeepEqual(a.last, want) {
			t.Errorf("%s: asked %q %+v", version, a.asked, a.last)
		}
	}
}

// refusal reads what a runtime gets to see.
func refusal(t *testing.T, out string) (code int, text string) {
	t.Helper()
	var e struct {
		Code         int
		Msg, Details string
	}
	if err := json.Unmarshal([]byte(out), &e); err != nil {
		t.Fatalf("%v: %q", err, out)
	}
	return e.Code, e.Msg + ": " + e.Details
}

func TestAddFailsClosed(t *testing.T) {
	refusing := newAgent(t, http.StatusServiceUnavailable, `{"reason":"no ztunnel is connected"}`)
	rambling := newAgent(t, http.StatusBadGateway, `<html>`)
	for name, tc := range map[string]struct {
		conf, args, says string
		code             int
	}{
		"no agent":      {conf("1.0.0", "/nowhere/agent.sock", prevResult), podArgs, "DaemonSet tulle-agent", 11},
		"agent refuses": {conf("1.0.0", refusing.socket, prevResult), podArgs, "no ztunnel is connected", 11},
		"not the agent": {conf("1.0.0", rambling.socket, prevResult), podArgs, "502", 11},
		"not chained":   {conf("1.0.0", refusing.socket, ""), podArgs, "chained after", 7},
		"no socket":     {conf("1.0.0", "", prevResult), podArgs, "agentSocket is missing", 6},
		"no pod":        {conf("1.0.0", refusing.socket, prevResult), "A=b", "K8S_POD_NAME", 4},
		"too old":       {conf("0.2.0", refusing.socket, prevResult), podArgs, "incompatible", 1},
	} {
		out, ok := call(t, "ADD", tc.conf, tc.args)
		if ok {
			t.Errorf("%s: succeeded with %s", name, out)
			continue
		}
		if code, text := refusal(t, out); code != tc.code || !strings.Contains(text, tc.says) {
			t.Errorf("%s: %d %s, want %d and %q", name, code, text, tc.code, tc.says)
		}
	}
}

func TestExcludedNamespacesNeedNoAgent(t *testing.T) {
	args := strings.Replace(podArgs, "NAMESPACE=shop", "NAMESPACE=kube-system", 1)
	for _, command := range []string{"ADD", "DEL", "CHECK"} {
		out, ok := call(t, command, conf("1.0.0", "/nowhere/agent.sock", prevResult), args)
		if !ok || command == "ADD" && out != prevResult {
			t.Errorf("%s: %v %s", command, ok, out)
		}
	}
}

func TestDeleteNeverFails(t *testing.T) {
	a := newAgent(t, http.StatusServiceUnavailable, `{"reason":"x"}`)
	for name, c := range map[string]string{
		"no agent": conf("1.0.0", "/nowhere/agent.sock", ""), "agent refuses": conf("1.0.0", a.socket, prevResult),
		"no socket": conf("1.0.0", "", ""),
	} {
		if out, ok := call(t, "DEL", c, podArgs); !ok || out != "" {
			t.Errorf("%s: %v %s", name, ok, out)
		}
	}
	if len(a.asked) != 1 || a.asked[0] != "POST /v1/cni/del" {
		t.Errorf("asked %q", a.asked)
	}
	if out, ok := call(t, "DEL", conf("1.0.0", a.socket, ""), ""); !ok {
		t.Errorf("without a pod: %s", out)
	}
}

func TestOtherCommands(t *testing.T) {
	a := newAgent(t, http.StatusOK, `{"enrolled":true}`)
	if out, ok := call(t, "CHECK", conf("1.0.0", a.socket, prevResult), podArgs); !ok || len(a.asked) != 1 {
		t.Errorf("CHECK: %v %s, asked %q", ok, out, a.asked)
	}
	if out, ok := call(t, "CHECK", conf("1.0.0", "/nowhere", prevResult), podArgs); ok {
		t.Errorf("CHECK without an agent: %s", out)
	}
	for _, command := range []string{"STATUS", "GC"} {
		if out, ok := call(t, command, conf("1.1.0", "/nowhere/agent.sock", ""), ""); !ok {
			t.Errorf("%s: %s", command, out)
		}
	}
	out, ok := call(t, "VERSION", "", "")
	for _, v := range []string{"0.4.0", "1.0.0", "1.1.0"} {
		if !ok || !strings.Contains(out, `"`+v+`"`) {
			t.Errorf("VERSION: %s", out)
		}
	}
}

const whole = `{"containerID":"c","ifName":"eth0","netns":"/n","namespace":"shop","name":"web-0","uid":"u","addresses":["10.0.0.1"]}`

func TestDecode(t *testing.T) {
	if q, err := cni.Decode(strings.NewReader(whole)); err != nil || q.Name != "web-0" || len(q.Addresses) != 1 {
		t.Errorf("%+v, %v", q, err)
	}
	for n := range whole {
		if _, err := cni.Decode(strings.NewReader(whole[:n])); err == nil {
			t.Errorf("%d of %d bytes were taken", n, len(whole))
		}
	}
	for text, says := range map[string]string{
		`{"name":"a","namespace":"b","x":1}`:                "x",
		`{"name":"a"}`:                                      "namespace or name",
		`{"name":"a","namespace":"b","netns":"n"}`:          "absolute",
		`{"name":"a","namespace":"b"} {}`:                   "more after",
		`{"name":"a","namespace":"b","addresses":["10.0"]}`: "10.0",
		`{"name":"a","namespace":"b","addresses":["::1"` + strings.Repeat(`,"::1"`, 16) + `]}`: "17 addresses",
	} {
		if _, err := cni.Decode(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want %q", text, err, says)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(whole)
	f.Fuzz(func(t *testing.T, s string) {
		if q, err := cni.Decode(strings.NewReader(s)); err == nil && (q.Name == "" || q.Namespace == "") {
			t.Errorf("%q gave %+v", s, q)
		}
	})
}
