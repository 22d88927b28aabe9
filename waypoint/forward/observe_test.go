package forward_test

import (
	"encoding/hex"
	"io"
	"net/http"
	"strings"
	"testing"

	apiworkload "github.com/tulle-mesh/tulle/api/workload"
	"github.com/tulle-mesh/tulle/waypoint/forward"
	"github.com/tulle-mesh/tulle/waypoint/trace"
)

// framed is n messages of gRPC of some bytes each.
func framed(n int) string {
	return strings.Repeat("\x00\x00\x00\x00\x05hello", n)
}

func TestRecordsCountTheMessagesOfCalls(t *testing.T) {
	w := newWorld(t)
	w.service("web", apiworkload.AppProtocol_GRPC, app(t, func(rw http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		rw.Header().Set("content-type", "application/grpc")
		rw.Header().Set("trailer", "grpc-status")
		_, _ = io.WriteString(rw, framed(7))
		rw.Header().Set("grpc-status", "0")
	}))
	w.routes()
	for name, body := range map[string]io.Reader{"whole": strings.NewReader(framed(3)), "streamed": io.MultiReader(strings.NewReader(framed(3)))} {
		t.Run(name, func(t *testing.T) {
			q, err := http.NewRequest("POST", w.url+"/call/"+name, body)
			if err != nil {
				t.Fatal(err)
			}
			q.Header.Set("content-type", "application/grpc")
			r, err := httpClient(t, true).Do(q)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, r.Body)
			r.Body.Close()
			w.recorded(func(r forward.Record) bool {
				return r.Path == "/call/"+name && r.Call && r.RequestMessages == 3 && r.ResponseMessages == 7 && r.GRPC == 0 && r.Target != nil && r.Response != nil && r.Head > 0
			})
		})
	}
}

func TestSampledRequestsTakeTheirTraceToTheApplication(t *testing.T) {
	w := newWorld(t)
	got := make(chan http.Header, 2)
	w.service("web", apiworkload.AppProtocol_HTTP11, app(t, func(_ http.ResponseWriter, r *http.Request) { got <- r.Header }))
	w.routes()
	ask := func(parent string) http.Header {
		q, err := http.NewRequest("GET", w.url+"/traced", nil)
		if err != nil {
			t.Fatal(err)
		}
		q.Header.Set("traceparent", parent)
		r, err := httpClient(t, false).Do(q)
		if err != nil {
			t.Fatal(err)
		}
		r.Body.Close()
		return <-got
	}
	const id = "4bf92f3577b34da6a3ce929d0e0e4736"
	parent := "00-" + id + "-00f067aa0ba902b7-01"
	if h := ask(parent); h.Get("traceparent") != parent {
		t.Errorf("without tracing the context became %s", h.Get("traceparent"))
	}
	w.tracer.Configure(&trace.Settings{})
	h := ask(parent)
	w.recorded(func(r forward.Record) bool {
		return r.Span != nil && hex.EncodeToString(r.Span.Trace[:]) == id && len(r.Span.Attempts) == 1 && r.Span.Attempts[0].Status == 200 &&
			!r.Span.Attempts[0].End.IsZero() && h.Get("traceparent") == "00-"+id+"-"+hex.EncodeToString(r.Span.Attempts[0].ID[:])+"-01"
	})
	if no := ask("00-" + id + "-00f067aa0ba902b7-00"); no.Get("traceparent") != "00-"+id+"-00f067aa0ba902b7-00" {
		t.Errorf("what is not sampled became %s", no.Get("traceparent"))
	}
}
