package baggage_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tulle-mesh/tulle/internal/baggage"
)

var full = baggage.Baggage{
	Cluster: "Kubernetes", Namespace: "shop", WorkloadKind: "deployment", WorkloadName: "web",
	ServiceName: "web", ServiceVersion: "v1", Region: "eu", Zone: "eu-a",
}

const fullHeader = "k8s.cluster.name=Kubernetes,k8s.namespace.name=shop,k8s.deployment.name=web," +
	"service.name=web,service.version=v1,cloud.region=eu,cloud.availability_zone=eu-a"

func TestHeaderHasIstiosKeysInOrder(t *testing.T) {
	if got := full.String(); got != fullHeader {
		t.Errorf("got  %s\nwant %s", got, fullHeader)
	}
}

func TestEmptyPartsAreLeftOut(t *testing.T) {
	if got := (baggage.Baggage{}).String(); got != "" {
		t.Errorf("zero baggage is written as %q", got)
	}
	b := baggage.Baggage{Namespace: "shop", WorkloadKind: "statefulset", WorkloadName: "db"}
	if got := b.String(); got != "k8s.namespace.name=shop" {
		t.Errorf("got %q", got)
	}
}

func TestParse(t *testing.T) {
	for _, tt := range []struct {
		name, header string
		want         baggage.Baggage
	}{
		{"full", fullHeader, full},
		{"empty", "", baggage.Baggage{}},
		{"spaces and properties", " k8s.namespace.name = shop ;p=1;q , service.name=web", baggage.Baggage{Namespace: "shop", ServiceName: "web"}},
		{"unknown keys", "a=b,k8s.node.name=n,k8s.pod.name=p", baggage.Baggage{WorkloadKind: "pod", WorkloadName: "p"}},
		{"first wins", "service.name=a,service.name=b,k8s.job.name=j,k8s.pod.name=p", baggage.Baggage{ServiceName: "a", WorkloadKind: "job", WorkloadName: "j"}},
		{"percent", "cloud.region=a%2Cb%20%25", baggage.Baggage{Region: "a,b %"}},
		{"empty members", ",,service.name=a,", baggage.Baggage{ServiceName: "a"}},
		{"unknown key malformed value", "x=%zz,service.name=a", baggage.Baggage{ServiceName: "a"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := baggage.Parse(tt.header)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	for name, header := range map[string]string{
		"no equals":     "service.name",
		"no key":        "=a",
		"short percent": "service.name=a%2",
		"bad percent":   "service.name=%zz",
		"control":       "service.name=a\nb",
		"not utf-8":     "service.name=%ff",
		"long value":    "service.name=" + strings.Repeat("a", 254),
		"long header":   strings.Repeat("a", 8193),
		"many members":  strings.Repeat("a=b,", 65),
	} {
		t.Run(name, func(t *testing.T) {
			got, err := baggage.Parse(header)
			if err == nil {
				t.Fatalf("parsed as %+v", got)
			}
			if got != (baggage.Baggage{}) {
				t.Errorf("error with a value: %+v", got)
			}
		})
	}
}

// A cut header must be an error or hold a prefix of what was sent, never
// something else.
func TestTruncation(t *testing.T) {
	for n := range fullHeader {
		got, err := baggage.Parse(fullHeader[:n])
		if err != nil {
			continue
		}
		for _, pair := range [][2]string{
			{got.Cluster, full.Cluster}, {got.Namespace, full.Namespace}, {got.WorkloadName, full.WorkloadName},
			{got.ServiceName, full.ServiceName}, {got.ServiceVersion, full.ServiceVersion},
			{got.Region, full.Region}, {got.Zone, full.Zone},
		} {
			if !strings.HasPrefix(pair[1], pair[0]) {
				t.Errorf("cut at %d: %q is no prefix of %q", n, pair[0], pair[1])
			}
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(fullHeader)
	f.Add("k8s.pod.name=%41%,;=,x")
	f.Add("")
	f.Fuzz(func(t *testing.T, header string) {
		b, err := baggage.Parse(header)
		if err != nil {
			return
		}
		again, err := baggage.Parse(b.String())
		if err != nil {
			t.Fatalf("%q does not parse again: %v", b.String(), err)
		}
		if again != b {
			t.Errorf("%+v became %+v", b, again)
		}
		if strings.ContainsAny(b.String(), "\r\n\x00 ") {
			t.Errorf("%q does not fit a header", b.String())
		}
	})
}

func BenchmarkString(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		_ = full.String()
	}
}

func BenchmarkParse(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := baggage.Parse(fullHeader); err != nil {
			b.Fatal(err)
		}
	}
}
