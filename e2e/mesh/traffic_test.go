package mesh_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

const (
	client   = "apps/client"
	other    = "apps/other"
	stranger = "outside/stranger"
)

// The service names that clients use.
const (
	peerService     = "peer.data.svc.cluster.local"
	outsidePeer     = "peer.outside.svc.cluster.local"
	postgresService = "postgres.data.svc.cluster.local"
	redisService    = "redis.data.svc.cluster.local"
	nginxService    = "nginx.data.svc.cluster.local"
	iperfService    = "iperf.data.svc.cluster.local"
)

// podIPs returns a pod's addresses as itself sees them: IPv4, IPv6.
func (m *mesh) podIPs(t *testing.T, pod string) (v4, v6 string) {
	t.Helper()
	out, err := m.exec(t.Context(), pod, "ip", "-json", "addr", "show", "dev", "eth0", "scope", "global")
	if err != nil {
		t.Fatal(err)
	}
	var links []struct {
		AddrInfo []struct{ Family, Local string } `json:"addr_info"`
	}
	if err := json.Unmarshal([]byte(out), &links); err != nil || len(links) == 0 {
		t.Fatalf("ip addr: %v: %s", err, out)
	}
	for _, a := range links[0].AddrInfo {
		// What the scope filters out is there as an empty object.
		switch a.Family {
		case "inet":
			v4 = a.Local
		case "inet6":
			v6 = "[" + a.Local + "]"
		}
	}
	if v4 == "" || v6 == "" {
		t.Fatalf("%s has addresses %q and %q", pod, v4, v6)
	}
	return v4, v6
}

func TestProtocolsBehaveAsWithoutAMesh(t *testing.T) { protocols(t, start(t)) }

func protocols(t *testing.T, m *mesh) {
	v4, v6 := m.podIPs(t, "data/peer")
	for name, host := range map[string]string{"service": peerService, "pod IPv4": v4, "pod IPv6": v6} {
		t.Run(name, func(t *testing.T) {
			m.want(t, client, "some text", "echo", host+":7000", "some text")
			m.want(t, client, "220 hello", "greet", host+":7001")
			m.want(t, client, "get: 3000000", "get", host+":7002", "3000000")
			m.want(t, client, "put: 3000000", "put", host+":7003", "3000000")
			m.want(t, client, "put: 11", "half", host+":7003")
			m.want(t, client, "reset", "reset", host+":7004")
			m.want(t, client, "reset", "abort", host+":7006")
		})
	}
}

func TestServerSeesTheOriginalSource(t *testing.T) { originalSource(t, start(t)) }

func originalSource(t *testing.T, m *mesh) {
	own4, own6 := m.podIPs(t, client)
	v4, v6 := m.podIPs(t, "data/peer")
	m.want(t, client, own4, "whoami", v4+":7005")
	m.want(t, client, strings.Trim(own6, "[]"), "whoami", v6+":7005")
	m.want(t, client, own4, "whoami", peerService+":7005")
}

func TestTrafficAcrossTheMeshsEdge(t *testing.T) {
	m := start(t)
	// From outside in: plaintext is allowed where no policy asks for more.
	m.want(t, stranger, "hello", "echo", peerService+":7000", "hello")
	// From inside out: passed as it is.
	m.want(t, client, "hello", "echo", outsidePeer+":7000", "hello")
	own4, _ := m.podIPs(t, stranger)
	v4, _ := m.podIPs(t, "data/peer")
	m.want(t, stranger, own4, "whoami", v4+":7005")
}

func TestGibibyteEachWay(t *testing.T) {
	m := start(t)
	const gib = "1073741824"
	m.want(t, client, "get: "+gib, "get", peerService+":7002", gib)
	m.want(t, client, "put: "+gib, "put", peerService+":7003", gib)
}

func TestTwoThousandConnectionsAtOnce(t *testing.T) {
	m := start(t)
	m.want(t, client, "connections: 2000", "many", peerService+":7000", "2000")
}

func TestPostgreSQL(t *testing.T) { postgreSQL(t, start(t)) }

func postgreSQL(t *testing.T, m *mesh) {
	conn := "host=" + postgresService + " user=postgres dbname=postgres connect_timeout=20"
	query := "select md5(string_agg(n::text, ',')) from generate_series(1, 200000) n"
	through, err := m.exec(t.Context(), client, "psql", "-Atc", query, conn)
	if err != nil {
		t.Fatal(err)
	}
	direct, err := m.exec(t.Context(), "data/postgres", "psql", "-Atc", query, "host=127.0.0.1 user=postgres dbname=postgres")
	if err != nil {
		t.Fatal(err)
	}
	if through != direct || through == "" {
		t.Errorf("through the mesh %q, direct %q", through, direct)
	}
	pgbench := filepath.Join(postgresPath(), "pgbench")
	args := []string{"-h", postgresService, "-U", "postgres"}
	if _, err := m.exec(t.Context(), client, append(append([]string{pgbench, "-i", "-q", "-s", "1"}, args...), "postgres")...); err != nil {
		t.Fatal(err)
	}
	out, err := m.exec(t.Context(), client, append(append([]string{pgbench, "-c", "8", "-j", "2", "-t", "200"}, args...), "postgres")...)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out, "actually processed: 1600/1600") || !strings.Contains(out, "failed transactions: 0 ") {
		t.Errorf("pgbench:\n%s", out)
	}
	// A new connection each transaction.
	out, err = m.exec(t.Context(), client, append(append([]string{pgbench, "-C", "-S", "-c", "4", "-t", "50"}, args...), "postgres")...)
	if err != nil || !strings.Contains(out, "actually processed: 200/200") {
		t.Errorf("pgbench -C: %v\n%s", err, out)
	}
}

func TestRedis(t *testing.T) {
	m := start(t)
	out, err := m.exec(t.Context(), client, "redis-benchmark", "-h", redisService, "-t", "set,get,lrange_100", "-n", "20000", "-c", "50", "-P", "4", "-d", "512", "-q")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(out, "Error") || !strings.Contains(out, "GET:") {
		t.Errorf("redis-benchmark:\n%s", out)
	}
	if _, err := m.exec(t.Context(), client, "redis-cli", "-h", redisService, "set", "key", strings.Repeat("v", 100_000)); err != nil {
		t.Fatal(err)
	}
	got, err := m.exec(t.Context(), client, "redis-cli", "-h", redisService, "strlen", "key")
	if err != nil || got != "100000" {
		t.Errorf("strlen: %v %q", err, got)
	}
}

func TestNginxAndCurl(t *testing.T) {
	m := start(t)
	sum := sha256.New()
	if err := copyFile(sum, filepath.Join(m.root, "www", "file")); err != nil {
		t.Fatal(err)
	}
	want := hex.EncodeToString(sum.Sum(nil))
	for range 3 {
		out, err := m.exec(t.Context(), client, "sh", "-c", "curl -sSf --max-time 60 http://"+nginxService+"/file | sha256sum")
		if err != nil {
			t.Fatal(err)
		}
		if got, _, _ := strings.Cut(out, " "); got != want {
			t.Errorf("sum %s, want %s", got, want)
		}
	}
	out, err := m.exec(t.Context(), client, "curl", "-sS", "--max-time", "20", "-o", "/dev/null", "-w", "%{http_code}", "http://"+nginxService+"/none")
	if err != nil || out != "404" {
		t.Errorf("status %q: %v", out, err)
	}
}

func TestIperf(t *testing.T) {
	m := start(t)
	for _, direction := range []string{"", "-R"} {
		args := []string{"iperf3", "-c", iperfService, "-t", "2", "-P", "4", "-J"}
		if direction != "" {
			args = append(args, direction)
		}
		out, err := m.exec(t.Context(), client, args...)
		if err != nil {
			t.Fatal(err)
		}
		var result struct {
			Error string
			End   struct {
				SumReceived struct{ Bytes float64 } `json:"sum_received"`
			}
		}
		if err := json.Unmarshal([]byte(out), &result); err != nil || result.Error != "" || result.End.SumReceived.Bytes == 0 {
			t.Errorf("iperf3 %s: %v %+v", direction, err, result)
		}
	}
}

func TestNoPlaintextBetweenTheNodes(t *testing.T) {
	m := start(t)
	const marker = "never-in-the-clear-6f1d"
	seen := m.capture(t, "node-1", marker)
	// The capture sees plaintext where there is some: to a pod that is not enrolled.
	m.want(t, stranger, marker, "echo", outsidePeer+":7000", marker)
	if s := seen(); s.Marked == 0 {
		t.Fatalf("the capture missed plaintext: %+v", s)
	}
	seen = m.capture(t, "node-1", marker)
	v4, v6 := m.podIPs(t, "data/peer")
	for _, host := range []string{peerService, v4, v6} {
		m.want(t, client, marker, "echo", host+":7000", marker)
	}
	if _, err := m.exec(t.Context(), client, "redis-cli", "-h", redisService, "set", "k", marker); err != nil {
		t.Error(err)
	}
	s := seen()
	if s.Marked != 0 {
		t.Errorf("%d packets held the marker in the clear", s.Marked)
	}
	if s.Ports["15008"] == 0 {
		t.Errorf("no packet to port 15008 was seen: %+v", s)
	}
	for port, n := range s.Ports {
		// 15012 is the control plane's, TLS too.
		if port != "15008" && port != "15012" {
			t.Errorf("%d packets to port %s", n, port)
		}
	}
}

func TestAccessLogNamesBothIdentities(t *testing.T) {
	m := start(t)
	m.want(t, client, "for the log", "echo", peerService+":7000", "for the log")
	src, dst := "spiffe://cluster.local/ns/apps/sa/client", "spiffe://cluster.local/ns/data/sa/peer"
	for node, direction := range map[string]string{"node-1": "outbound", "node-2": "inbound"} {
		m.wantLog(t, []string{"ztunnel", "--node", node}, "connection complete", fmt.Sprintf("src.identity=%q", src), fmt.Sprintf("dst.identity=%q", dst), fmt.Sprintf("direction=%q", direction))
	}
}
