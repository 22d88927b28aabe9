package trace_test

import (
	"encoding/hex"
	"strings"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/waypoint/message"
	"github.com/tulle-mesh/tulle/waypoint/trace"
)

const (
	id     = "4bf92f3577b34da6a3ce929d0e0e4736"
	parent = "00f067aa0ba902b7"
)

func tracer(sampling uint32, ignore bool) *trace.Tracer {
	t := trace.NewTracer()
	t.Configure(&trace.Settings{Sampling: sampling, IgnoreParent: ignore})
	return t
}

func request(fields ...string) *message.Request {
	r := &message.Request{Method: "GET", Path: "/"}
	for i := 0; i < len(fields); i += 2 {
		r.Header.Add(fields[i], fields[i+1])
	}
	return r
}

func TestTheClientDecides(t *testing.T) {
	for name, c := range map[string]struct {
		sampling uint32
		ignore   bool
		fields   []string
		sampled  bool
		of       string
	}{
		"nobody has decided, none is sampled":   {0, false, nil, false, ""},
		"nobody has decided, all are sampled":   {10000, false, nil, true, ""},
		"W3C yes":                               {0, false, []string{"traceparent", "00-" + id + "-" + parent + "-01"}, true, id},
		"W3C no":                                {10000, false, []string{"traceparent", "00-" + id + "-" + parent + "-00"}, false, ""},
		"W3C no, ignored":                       {10000, true, []string{"traceparent", "00-" + id + "-" + parent + "-00"}, true, id},
		"W3C yes, ignored":                      {0, true, []string{"traceparent", "00-" + id + "-" + parent + "-01"}, false, ""},
		"W3C of a later version":                {0, false, []string{"traceparent", "01-" + id + "-" + parent + "-01-more"}, true, id},
		"W3C of version ff is none":             {0, false, []string{"traceparent", "ff-" + id + "-" + parent + "-01"}, false, ""},
		"W3C longer than version 0 is none":     {0, false, []string{"traceparent", "00-" + id + "-" + parent + "-01-more"}, false, ""},
		"W3C in upper case is none":             {0, false, []string{"traceparent", "00-" + strings.ToUpper(id) + "-" + parent + "-01"}, false, ""},
		"W3C twice is none":                     {0, false, []string{"traceparent", "00-" + id + "-" + parent + "-01", "traceparent", "00-" + id + "-" + parent + "-01"}, false, ""},
		"W3C of zeros is none":                  {0, false, []string{"traceparent", "00-00000000000000000000000000000000-" + parent + "-01"}, false, ""},
		"B3 in one field":                       {0, false, []string{"b3", id + "-" + parent + "-1"}, true, id},
		"B3 in one field, debug, with a parent": {0, false, []string{"b3", id + "-" + parent + "-d-" + parent}, true, id},
		"B3 in one field, no":                   {10000, false, []string{"b3", id + "-" + parent + "-0"}, false, ""},
		"B3 defers to us":                       {10000, false, []string{"b3", id + "-" + parent}, true, id},
		"B3 says no and names no trace":         {0, false, []string{"b3", "0"}, false, ""},
		"B3 in several fields":                  {0, false, []string{"x-b3-traceid", id, "x-b3-spanid", parent, "x-b3-sampled", "1"}, true, id},
		"B3 of 64 bits":                         {0, false, []string{"x-b3-traceid", id[16:], "x-b3-spanid", parent, "x-b3-sampled", "1"}, true, "0000000000000000" + id[16:]},
		"B3 by a flag":                          {0, false, []string{"x-b3-traceid", id, "x-b3-spanid", parent, "x-b3-flags", "1"}, true, id},
		"B3 cut short is none":                  {0, false, []string{"x-b3-traceid", id[1:], "x-b3-spanid", parent, "x-b3-sampled", "1"}, false, ""},
		"W3C goes before B3":                    {0, false, []string{"b3", "0", "traceparent", "00-" + id + "-" + parent + "-01"}, true, id},
	} {
		t.Run(name, func(t *testing.T) {
			s := tracer(c.sampling, c.ignore).Start(request(c.fields...))
			if (s != nil) != c.sampled {
				t.Fatalf("sampled is %t", s != nil)
			}
			if s == nil {
				return
			}
			if got := hex.EncodeToString(s.Trace[:]); c.of != "" && got != c.of {
				t.Errorf("trace %s", got)
			}
			if got := hex.EncodeToString(s.Parent[:]); c.of != "" && got != parent {
				t.Errorf("parent %s", got)
			}
			if s.ID == (trace.SpanID{}) || s.Trace == (trace.ID{}) {
				t.Error("it has no names")
			}
		})
	}
}

func TestTheContextGoesOnInTheFormsInWhichItCame(t *testing.T) {
	for name, fields := range map[string][]string{
		"W3C":       {"traceparent", "00-" + id + "-" + parent + "-01", "tracestate", "a=b"},
		"B3 single": {"b3", id + "-" + parent + "-1"},
		"B3 multi":  {"x-b3-traceid", id, "x-b3-spanid", parent, "x-b3-sampled", "1"},
		"none":      nil,
	} {
		t.Run(name, func(t *testing.T) {
			r := request(fields...)
			s := tracer(10000, false).Start(r)
			s.Begin(&r.Header, time.Now())
			s.End(time.Now(), trace.Outcome{Status: 503})
			s.Begin(&r.Header, time.Now())
			s.End(time.Now(), trace.Outcome{Status: 200})
			if len(s.Attempts) != 2 || s.Attempts[0].Status != 503 || s.Attempts[1].Status != 200 || s.Attempts[0].ID == s.Attempts[1].ID {
				t.Fatalf("attempts: %+v", s.Attempts)
			}
			last, of := hex.EncodeToString(s.Attempts[1].ID[:]), hex.EncodeToString(s.Trace[:])
			if got := r.Header.Get("traceparent"); got != "00-"+of+"-"+last+"-01" {
				t.Errorf("traceparent: %s", got)
			}
			for i := 0; i < len(fields); i += 2 {
				got := r.Header.Get(fields[i])
				switch fields[i] {
				case "b3":
					if want := of + "-" + last + "-1-" + hex.EncodeToString(s.ID[:]); got != want {
						t.Errorf("b3: %s", got)
					}
				case "x-b3-spanid":
					if got != last {
						t.Errorf("x-b3-spanid: %s", got)
					}
				case "tracestate":
					if got != "a=b" || s.State != "a=b" {
						t.Errorf("tracestate: %s", got)
					}
				}
			}
			if name == "none" && (r.Header.Has("b3") || r.Header.Has("x-b3-traceid")) {
				t.Errorf("B3 without having been asked: %v", r.Header)
			}
		})
	}
}

func TestWhatIsNotSampledStaysAsItCame(t *testing.T) {
	r := request("traceparent", "00-"+id+"-"+parent+"-00", "x-b3-sampled", "0", "accept", "*/*")
	before := r.Header.Clone()
	s := tracer(10000, false).Start(r)
	s.Begin(&r.Header, time.Now())
	s.End(time.Now(), trace.Outcome{})
	if s != nil || len(before) != len(r.Header) || before[0] != r.Header[0] {
		t.Errorf("%v became %v", before, r.Header)
	}
}

func TestSamplingIsHundredthsOfAPercent(t *testing.T) {
	tr, n := tracer(2500, false), 0
	r := request()
	const all = 20000
	for range all {
		if tr.Start(r) != nil {
			n++
		}
	}
	// 25 % of 20,000, and the deviation is 61.
	if n < 4600 || n > 5400 {
		t.Errorf("%d of %d", n, all)
	}
}

func TestNobodyTracesForNothing(t *testing.T) {
	var none *trace.Tracer
	if none.Start(request()) != nil || trace.NewTracer().Start(request()) != nil {
		t.Error("sampled")
	}
}

// ordinary is a request of a browser.
func ordinary() *message.Request {
	return request("accept", "*/*", "user-agent", "curl/8.14", "accept-encoding", "gzip, br", "cookie", "a=b",
		"x-request-id", "6ba7b810-9dad-11d1-80b4-00c04fd430c8", "x-forwarded-proto", "http", "cache-control", "no-cache", "content-type", "text/plain")
}

func TestWhatIsNotSampledCostsNoMemory(t *testing.T) {
	tr, r := tracer(1, false), ordinary()
	tr.Configure(&trace.Settings{Sampling: 0})
	refused := request("traceparent", "00-"+id+"-"+parent+"-00")
	if n := testing.AllocsPerRun(100, func() {
		if tr.Start(r) != nil || tr.Start(refused) != nil {
			t.Fatal("sampled")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkNotSampled(b *testing.B) {
	tr, r := tracer(0, false), ordinary()
	b.ReportAllocs()
	for b.Loop() {
		if tr.Start(r) != nil {
			b.Fatal("sampled")
		}
	}
}

func BenchmarkSampled(b *testing.B) {
	tr, r := tracer(10000, false), ordinary()
	b.ReportAllocs()
	for b.Loop() {
		s := tr.Start(r)
		s.Begin(&r.Header, time.Time{})
		s.End(time.Time{}, trace.Outcome{})
	}
}

func FuzzContext(f *testing.F) {
	f.Add("00-"+id+"-"+parent+"-01", id+"-"+parent+"-1", id, parent)
	f.Add("", "0", "", "")
	tr := tracer(10000, true)
	f.Fuzz(func(t *testing.T, w3c, b3, traceID, spanID string) {
		r := request("traceparent", w3c, "b3", b3, "x-b3-traceid", traceID, "x-b3-spanid", spanID)
		s := tr.Start(r)
		s.Begin(&r.Header, time.Time{})
		if s.Trace == (trace.ID{}) {
			t.Fatal("a trace without a name")
		}
		// What is written is read again as the same trace.
		again := tr.Start(r)
		if again.Trace != s.Trace || again.Parent != s.Attempts[0].ID {
			t.Fatalf("%+v became %+v", s, again)
		}
	})
}
