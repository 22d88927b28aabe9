package accesslog_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/tulle-mesh/tulle/internal/accesslog"
	"github.com/tulle-mesh/tulle/internal/logging"
	"github.com/tulle-mesh/tulle/internal/workload"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func now() time.Time { return time.Date(2026, 11, 21, 10, 0, 0, 123456789, time.UTC) }

func entry() accesslog.Entry {
	return accesslog.Entry{
		Direction:           accesslog.Outbound,
		Source:              netip.MustParseAddrPort("10.0.0.1:40000"),
		SourceWorkload:      &workload.Workload{Name: "web-0", Namespace: "shop", ClusterID: "Kubernetes"},
		SourceIdentity:      spiffeid.RequireFromString("spiffe://cluster.local/ns/shop/sa/web"),
		Destination:         netip.MustParseAddrPort("10.0.0.2:15008"),
		HBONEAddr:           "10.0.0.2:8080",
		DestinationService:  &workload.Service{Hostname: "api.shop.svc"},
		DestinationWorkload: &workload.Workload{Name: "api-0", Namespace: "shop", ClusterID: "Kubernetes"},
		DestinationIdentity: spiffeid.RequireFromString("spiffe://cluster.local/ns/shop/sa/api"),
		FromClient:          84, FromServer: 358, Duration: 13*time.Millisecond + 999*time.Microsecond,
		Policy: "shop/allow-web", Carrier: "h2",
	}
}

// lines logs with f and returns what was written.
func lines(t *testing.T, cfg accesslog.Config, f func(l *accesslog.Log)) string {
	t.Helper()
	var out bytes.Buffer
	cfg.Output, cfg.Now = &out, now
	l := accesslog.New(cfg)
	f(l)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

const peers = `src.addr=10.0.0.1:40000 src.workload="web-0" src.namespace="shop" src.identity="spiffe://cluster.local/ns/shop/sa/web" src.cluster="Kubernetes" ` +
	`dst.addr=10.0.0.2:15008 dst.hbone_addr=10.0.0.2:8080 dst.service="api.shop.svc" dst.workload="api-0" dst.namespace="shop" dst.identity="spiffe://cluster.local/ns/shop/sa/api" dst.cluster="Kubernetes" `

func TestText(t *testing.T) {
	log, levels, err := logging.New(logging.Config{Output: io.Discard, Level: "access:debug"})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		log  func(l *accesslog.Log)
		want string
	}{
		{"complete", func(l *accesslog.Log) { l.Connection(entry()) },
			"info\taccess\tconnection complete\t" + peers + `direction="outbound" bytes_sent=84 bytes_recv=358 duration="13ms" policy="shop/allow-web" carrier="h2"`},
		{"inbound is seen from its pod", func(l *accesslog.Log) {
			e := entry()
			e.Direction = accesslog.Inbound
			l.Connection(e)
		}, "info\taccess\tconnection complete\t" + peers + `direction="inbound" bytes_sent=358 bytes_recv=84 duration="13ms" policy="shop/allow-web" carrier="h2"`},
		{"failed", func(l *accesslog.Log) {
			e := entry()
			e.Err = errors.New("denied by policy shop/p")
			l.Connection(e)
		}, "error\taccess\tconnection complete\t" + peers + `direction="outbound" bytes_sent=84 bytes_recv=358 duration="13ms" error="denied by policy shop/p" policy="shop/allow-web" carrier="h2"`},
		{"opened", func(l *accesslog.Log) { l.Opened(entry()) },
			"debug\taccess\tconnection opened\t" + peers + `direction="outbound" policy="shop/allow-web" carrier="h2"`},
		{"refused", func(l *accesslog.Log) {
			e := entry()
			e.Err = errors.New("not announced")
			l.Refused(e)
		}, "warn\taccess\tconnection failed\t" + `src.addr=10.0.0.1:40000 dst.addr=10.0.0.2:15008 direction="outbound" error="not announced"`},
		{"nothing known", func(l *accesslog.Log) { l.Connection(accesslog.Entry{}) },
			"info\taccess\tconnection complete\t" + `direction="inbound" bytes_sent=0 bytes_recv=0 duration="0ms"`},
		{"IPv6 and a host name", func(l *accesslog.Log) {
			l.Connection(accesslog.Entry{Source: netip.MustParseAddrPort("[fd00::1]:1"), HBONEAddr: "api.shop.svc:80"})
		}, "info\taccess\tconnection complete\t" + `src.addr=[fd00::1]:1 dst.hbone_addr="api.shop.svc:80" direction="inbound" bytes_sent=0 bytes_recv=0 duration="0ms"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_ = levels
			got := lines(t, accesslog.Config{Logger: log}, tt.log)
			if want := "2026-11-21T10:00:00.123456789Z\t" + tt.want + "\n"; got != want {
				t.Errorf("\ngot  %s\nwant %s", got, want)
			}
		})
	}
}

func TestJSON(t *testing.T) {
	e := entry()
	e.Err = errors.New("bad \"quote\" \\ \x01 \xff é")
	got := lines(t, accesslog.Config{JSON: true}, func(l *accesslog.Log) { l.Connection(e) })
	var m map[string]any
	if err := json.Unmarshal([]byte(got), &m); err != nil {
		t.Fatalf("%v in %s", err, got)
	}
	for k, want := range map[string]any{
		"level": "error", "scope": "access", "message": "connection complete", "time": "2026-11-21T10:00:00.123456789Z",
		"src.addr": "10.0.0.1:40000", "dst.hbone_addr": "10.0.0.2:8080", "bytes_sent": 84.0, "duration": "13ms",
		"error": "bad \"quote\" \\ \x01 \ufffd é", "policy": "shop/allow-web", "direction": "outbound",
	} {
		if m[k] != want {
			t.Errorf("%s is %#v, want %#v", k, m[k], want)
		}
	}
}

func TestLevels(t *testing.T) {
	log, levels, err := logging.New(logging.Config{Output: io.Discard, Level: "info"})
	if err != nil {
		t.Fatal(err)
	}
	all := func(l *accesslog.Log) {
		e := entry()
		l.Opened(e)
		l.Connection(e)
		e.Err = io.EOF
		l.Refused(e)
		l.Connection(e)
	}
	for spec, want := range map[string]int{"info": 3, "debug": 4, "info,access:warn": 2, "warn,access:debug": 4, "error": 1, "debug,access:error": 1} {
		if err := levels.Set(spec); err != nil {
			t.Fatal(err)
		}
		if got := strings.Count(lines(t, accesslog.Config{Logger: log}, all), "\n"); got != want {
			t.Errorf("level %s: %d lines, want %d", spec, got, want)
		}
	}
	if got := strings.Count(lines(t, accesslog.Config{}, all), "\n"); got != 3 {
		t.Errorf("without a logger: %d lines", got)
	}
}

// What comes from the wire or a policy must not forge a field or a line.
func TestInjection(t *testing.T) {
	e := entry()
	evil := "x\" error=\"none\nforged\tline\r\x1b[31m\u2028"
	e.SourceWorkload = &workload.Workload{Name: evil, Namespace: evil, ClusterID: evil}
	e.DestinationService = &workload.Service{Hostname: evil}
	e.HBONEAddr, e.Policy, e.Carrier, e.Err = evil, evil, evil, errors.New(evil+strings.Repeat("y", 5000))
	text := lines(t, accesslog.Config{}, func(l *accesslog.Log) { l.Connection(e) })
	if n := strings.Count(text, "\n"); n != 1 || strings.Count(text, "\t") != 4 || strings.ContainsAny(text, "\r\x1b\u2028") {
		t.Errorf("%d lines: %q", n, text)
	}
	if strings.Contains(strings.ReplaceAll(text, `\"`, ""), `error="none`) {
		t.Errorf("a field was forged: %s", text)
	}
	if len(text) > 4000 {
		t.Errorf("%d bytes", len(text))
	}
	got := lines(t, accesslog.Config{JSON: true}, func(l *accesslog.Log) { l.Connection(e) })
	var m map[string]any
	if err := json.Unmarshal([]byte(got), &m); err != nil || strings.Count(got, "\n") != 1 {
		t.Errorf("%v: %q", err, got)
	}
	if m["src.workload"] != evil {
		t.Errorf("%q", m["src.workload"])
	}
}

// gate is a writer that lets a write through when it is told to.
type gate struct {
	mu     sync.Mutex
	open   chan struct{}
	writes []int // lines per write
	buf    bytes.Buffer
}

func (g *gate) Write(b []byte) (int, error) {
	<-g.open
	g.mu.Lock()
	defer g.mu.Unlock()
	g.writes = append(g.writes, bytes.Count(b, []byte("\n")))
	return g.buf.Write(b)
}

func TestLinesAreBatchedAndCloseWritesThemAll(t *testing.T) {
	g := &gate{open: make(chan struct{})}
	l := accesslog.New(accesslog.Config{Output: g})
	for i := range 1000 {
		e := entry()
		e.FromClient = uint64(i)
		l.Connection(e)
	}
	close(g.open)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l.Connection(entry()) // dropped, not a panic
	got := strings.Split(strings.TrimSuffix(g.buf.String(), "\n"), "\n")
	if len(got) != 1000 {
		t.Fatalf("%d lines", len(got))
	}
	for i, line := range got {
		if !strings.Contains(line, fmt.Sprintf("bytes_sent=%d ", i)) {
			t.Fatalf("line %d is %s", i, line)
		}
	}
	if len(g.writes) < 1000/64 || len(g.writes) > 40 {
		t.Errorf("%d writes", len(g.writes))
	}
	for _, n := range g.writes {
		if n > 64 {
			t.Errorf("%d lines in one write", n)
		}
	}
}

// A log that nobody reads must not stall connections; it tells what is missing.
func TestFullQueueDropsAndTells(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &gate{open: make(chan struct{})}
		l := accesslog.New(accesslog.Config{Output: g})
		l.Connection(entry())
		synctest.Wait() // the writer holds the first line
		for range 10000 + 25 {
			l.Connection(entry())
		}
		if l.Lost() != 25 {
			t.Errorf("%d lost", l.Lost())
		}
		close(g.open)
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		out := g.buf.String()
		if n := strings.Count(out, "connection complete"); n != 10001 {
			t.Errorf("%d connections logged", n)
		}
		if !strings.Contains(out, "\twarn\taccess\t25 lines lost: the log was not read fast enough\tlost=25\n") {
			t.Error("nothing tells of the lost lines")
		}
	})
}

type broken struct{ writes int }

func (b *broken) Write([]byte) (int, error) {
	b.writes++
	return 0, errors.New("disk full")
}

func TestBrokenOutputIsToldOnce(t *testing.T) {
	var out bytes.Buffer
	log, _, err := logging.New(logging.Config{Output: &out})
	if err != nil {
		t.Fatal(err)
	}
	b := &broken{}
	l := accesslog.New(accesslog.Config{Output: b, Logger: log})
	for range 300 {
		l.Connection(entry())
	}
	_ = l.Close()
	if b.writes < 2 || strings.Count(out.String(), "disk full") != 1 {
		t.Errorf("after %d writes: %s", b.writes, &out)
	}
}

func TestConcurrentUse(t *testing.T) {
	got := lines(t, accesslog.Config{Logger: zap.NewNop()}, func(*accesslog.Log) {})
	if got != "" {
		t.Errorf("a silent logger wrote %q", got)
	}
	got = lines(t, accesslog.Config{}, func(l *accesslog.Log) {
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for range 100 {
					l.Connection(entry())
				}
			})
		}
		wg.Wait()
	})
	if n := strings.Count(got, "\n"); n != 800 {
		t.Errorf("%d lines", n)
	}
}

func BenchmarkConnection(b *testing.B) {
	for name, isJSON := range map[string]bool{"text": false, "json": true} {
		b.Run(name, func(b *testing.B) {
			l := accesslog.New(accesslog.Config{Output: io.Discard, JSON: isJSON})
			defer l.Close()
			e := entry()
			b.ReportAllocs()
			for b.Loop() {
				l.Connection(e)
			}
		})
	}
}

func TestFieldsRenderedBeforeStandAmongOthers(t *testing.T) {
	for _, json := range []bool{false, true} {
		first := accesslog.Render(json, func(l *accesslog.Line) {
			l.Text("src.workload", `we"b`)
			l.Number("n", 1)
		})
		l := accesslog.Line{JSON: json}
		l.Begin(time.Unix(0, 0), "info", "request complete")
		l.Fields(first)
		l.Fields(nil)
		l.Text("method", "GET")
		l.End()
		want := "1970-01-01T00:00:00Z\tinfo\taccess\trequest complete\tsrc.workload=\"we\\\"b\" n=1 method=\"GET\"\n"
		if json {
			want = `{"level":"info","time":"1970-01-01T00:00:00Z","scope":"access","message":"request complete","src.workload":"we\"b","n":1,"method":"GET"}` + "\n"
		}
		if string(l.Buf) != want {
			t.Errorf("%q, want %q", l.Buf, want)
		}
	}
}
