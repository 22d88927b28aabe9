package hbone_test

import (
	"bytes"
	"context"
	"encoding/xml"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/internal/hbone"
	"github.com/tulle-mesh/tulle/internal/roottest"
)

// h2specExpectedFailures names the cases, as "section/number", that may fail, each
// with the reason. It is empty: keep it so.
var h2specExpectedFailures = map[string]string{}

// answerWithBody answers every request with a body, after reading the request's,
// so that the cases about flow control have something to look at.
func answerWithBody(_ context.Context, r *hbone.ServerRequest) {
	s, err := r.Accept(hbone.Response{Status: 200})
	if err != nil {
		return
	}
	defer s.Close()
	if _, err := io.Copy(io.Discard, s); err != nil {
		return
	}
	if _, err := s.Write([]byte("hello, this is a body")); err == nil {
		_ = s.CloseWrite()
	}
}

// listen serves server on the loopback until the test ends.
func listen(t testing.TB, server *hbone.Server, wrap func(net.Conn) net.Conn) *net.TCPAddr {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { _ = server.ServeConn(ctx, wrap(c), nil) })
		}
	})
	t.Cleanup(func() {
		cancel()
		_ = l.Close()
		wg.Wait()
	})
	return l.Addr().(*net.TCPAddr)
}

func plain(c net.Conn) net.Conn { return c }

// TestH2spec runs the generic and http2 sections of h2spec against the server, over
// a plain connection.
func TestH2spec(t *testing.T) {
	h2spec := roottest.Tool(t, "../../e2e/tools", "h2spec")
	server := &hbone.Server{Handler: answerWithBody}
	addr := listen(t, server, plain)
	report := filepath.Join(t.TempDir(), "report.xml")
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, h2spec, "generic", "http2",
		"-h", addr.IP.String(), "-p", strconv.Itoa(addr.Port), "-j", report, "-o", "5")
	out, err := cmd.CombinedOutput()
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
	if err := xml.NewDecoder(bytes.NewReader(results)).Decode(&suites); err != nil {
		t.Fatal(err)
	}
	ran, number, section := 0, 0, ""
	for _, suite := range suites.Suites {
		for _, c := range suite.Cases {
			if c.Package != section {
				section, number = c.Package, 0
			}
			number++
			ran++
			name := fmt.Sprintf("%s/%d", section, number)
			failed := c.Failure != "" || c.Error != ""
			reason, expected := h2specExpectedFailures[name]
			switch {
			case failed && !expected:
				t.Errorf("%s %s:\n%s%s", name, c.ClassName, c.Failure, c.Error)
			case !failed && expected:
				t.Errorf("%s passes; take it off the list (%s)", name, reason)
			case c.Skipped != nil:
				t.Errorf("%s %s was skipped", name, c.ClassName)
			}
		}
	}
	if ran < 138 {
		t.Errorf("h2spec ran %d cases, want all of them (138 or more)\n%s", ran, out)
	}
	t.Logf("%d cases", ran)
}
