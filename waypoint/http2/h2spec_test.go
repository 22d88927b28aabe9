package http2_test

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

	"github.com/tulle-mesh/tulle/internal/roottest"
	"github.com/tulle-mesh/tulle/waypoint/http2"
	"github.com/tulle-mesh/tulle/waypoint/message"
)

// h2specExpectedFailures names the cases, as "section/number", that may fail, each
// with the reason. It is empty: keep it so.
var h2specExpectedFailures = map[string]string{}

// answerWithContent answers every request with content, after reading the request's,
// so that the cases about flow control have something to look at.
func answerWithContent(_ context.Context, x message.Exchange) {
	if _, err := io.Copy(io.Discard, x.Body()); err != nil {
		return
	}
	const content = "hello, this is content"
	if x.Respond(&message.Response{Status: 200, Length: int64(len(content))}, false) != nil {
		return
	}
	if _, err := io.WriteString(struct{ io.Writer }{x}, content); err == nil {
		_ = x.Close(nil)
	}
}

// listen serves server on the loopback until the test ends.
func listen(t testing.TB, server *http2.Server) *net.TCPAddr {
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
			wg.Go(func() { _ = server.Serve(ctx, c) })
		}
	})
	t.Cleanup(func() {
		cancel()
		_ = l.Close()
		wg.Wait()
	})
	return l.Addr().(*net.TCPAddr)
}

// TestH2spec runs the generic, http2 and hpack sections of h2spec against the server, over
// a plain connection.
func TestH2spec(t *testing.T) {
	h2spec := roottest.Tool(t, "../../e2e/tools", "h2spec")
	addr := listen(t, handled(answerWithContent))
	report := filepath.Join(t.TempDir(), "report.xml")
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, h2spec, "generic", "http2", "hpack",
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
	if ran < 145 {
		t.Errorf("h2spec ran %d cases, want all of them (145 or more)\n%s", ran, out)
	}
	t.Logf("%d cases", ran)
}
