package routes_test

import (
	_ "embed"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	api "github.com/tulle-mesh/tulle/api/waypoint"
	"github.com/tulle-mesh/tulle/istiod-lite/source"
	"github.com/tulle-mesh/tulle/istiod-lite/source/file"
	"github.com/tulle-mesh/tulle/istiod-lite/translate"
	"github.com/tulle-mesh/tulle/waypoint/message"
	"github.com/tulle-mesh/tulle/waypoint/route"
)

//go:embed world.yaml
var world string

func TestRoutes(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, path := range files {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txt"), func(t *testing.T) {
			content, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			objects, cases, found := strings.Cut(string(content), "\ncases:\n")
			if !found {
				t.Fatal("no line that says cases:")
			}
			services := compile(t, world+"---\n"+objects)
			for line := range strings.Lines(cases) {
				line = strings.TrimSpace(line)
				if line == "" || strings.HasPrefix(line, "#") {
					continue
				}
				asked, want, _ := strings.Cut(line, " -> ")
				if got := outcome(t, services, asked); got != want {
					t.Errorf("%s -> %s, want %s", asked, got, want)
				}
			}
		})
	}
}

func compile(t *testing.T, objects string) map[string]*route.Service {
	t.Helper()
	decoded, problems := file.Decode("objects.yaml", []byte(objects), source.Checker{RootNamespace: "istio-system"})
	for _, p := range problems {
		t.Fatal(p.Error())
	}
	services := map[string]*route.Service{}
	for name, r := range translate.Translate(decoded, translate.Options{}).WaypointServices {
		s, err := route.Compile(r.Body.(*api.Service))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		services[s.Name+"."+s.Namespace] = s
	}
	return services
}

// outcome asks "[CLIENT:] METHOD SERVICE:PORT/path?query [| name: value]..." and returns
// what the backend gets, or the answer.
func outcome(t *testing.T, services map[string]*route.Service, asked string) string {
	t.Helper()
	client := "mesh"
	if before, after, found := strings.Cut(asked, ": "); found && !strings.Contains(before, " ") {
		client, asked = before, after
	}
	parts := strings.Split(asked, " | ")
	method, target, _ := strings.Cut(parts[0], " ")
	authority, target, _ := strings.Cut(target, "/")
	name, number, _ := strings.Cut(authority, ":")
	if !strings.Contains(name, ".") {
		name += ".mesh"
	}
	portNumber, err := strconv.ParseUint(number, 10, 16)
	if err != nil {
		t.Fatal(err)
	}
	s := services[name]
	if s == nil {
		t.Fatalf("no service %s", name)
	}
	port := s.Port(uint16(portNumber))
	if port == nil {
		return "no port"
	}
	r := &message.Request{Method: method, Scheme: "http", Authority: strings.TrimSuffix(strings.TrimSuffix(name, ".mesh")+":"+number, ":80")}
	if r.Path, r.Query, r.HasQuery, err = message.ParseTarget("/" + target); err != nil {
		t.Fatal(err)
	}
	for _, h := range parts[1:] {
		field, value, _ := strings.Cut(h, ": ")
		r.Header.Add(strings.ToLower(field), value)
	}

	d := port.Match(client, r)
	if e := port.Explain(client, r); e.Decision != d.Kind.String() {
		t.Errorf("%s is explained as %+v", asked, e)
	}
	if status, grpc, refused := d.Refusal(); refused {
		return fmt.Sprintf("%d grpc %d", status, grpc)
	}
	if d.Kind == route.Default {
		return "default"
	}
	var faults []string
	for _, f := range d.Rule.Filters {
		if f.Fault != nil && f.Fault.Hits(r) {
			faults = append(faults, faultOf(f.Fault))
		}
	}
	if len(faults) > 0 {
		return strings.Join(faults, ", ") + " -> " + then(d, port, r)
	}
	return then(d, port, r)
}

// then is what becomes of a request that no fault has ended.
func then(d route.Decision, port *route.Port, r *message.Request) string {
	if c := d.Rule.Filters.CORS(); c != nil {
		if a := c.Preflight(r); a != nil {
			return answer(a)
		}
	}
	if x := d.Rule.Filters.Redirect(); x != nil {
		return answer(x.Respond(d, r, port.Number))
	}
	if x := d.Rule.Filters.Direct(); x != nil {
		return fmt.Sprintf("%d %q", x.Status, x.Body)
	}
	if len(d.Rule.Backends) > 1 {
		return shares(d.Rule)
	}
	b := d.Rule.Pick(0)
	if status, grpc, refused := b.Refusal(); refused {
		return fmt.Sprintf("%d grpc %d", status, grpc)
	}
	asked := strings.TrimSuffix(r.Authority, ":80")
	d.Apply(b, r)
	resp := &message.Response{Status: 200}
	d.ApplyResponse(b, resp)
	out := fmt.Sprintf("%s:%d %s", nameOf(b), b.Port, r.Target())
	if host := strings.TrimSuffix(r.Authority, ":80"); host != asked {
		out += " at " + host
	}
	if h := fields(r.Header); h != "" {
		out += " | " + h
	}
	if h := fields(resp.Header); h != "" {
		out += " => " + h
	}
	return out
}

// nameOf is the service, and behind a slash its subset.
func nameOf(b *route.Backend) string {
	host, _, _ := strings.Cut(strings.TrimPrefix(b.Service, "mesh/"), ".")
	if b.Subset != "" {
		host += "/" + b.Subset
	}
	return host
}

func faultOf(f *route.Fault) string {
	var out []string
	if d := f.Delay; d != nil {
		out = append(out, "delay "+d.Duration.String())
	}
	if a := f.Abort; a != nil {
		out = append(out, fmt.Sprintf("abort %d", a.Status))
	}
	return strings.Join(out, " and ")
}

func answer(r *message.Response) string {
	out := strconv.Itoa(r.Status)
	if h := fields(r.Header); h != "" {
		out += " | " + h
	}
	return out
}

// fields has each once, in the order of names.
func fields(h message.Header) string {
	var lines []string
	for _, f := range h {
		v, _ := h.Lookup(f.Name)
		if line := f.Name + ": " + v; !slices.Contains(lines, line) {
			lines = append(lines, line)
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, " | ")
}

// shares counts a thousand picks.
func shares(r *route.Rule) string {
	var s route.Spread
	count := map[string]int{}
	for range 1000 {
		b := r.Pick(s.Next())
		name := "500"
		if _, _, refused := b.Refusal(); !refused {
			name = nameOf(b)
		}
		count[name]++
	}
	var out []string
	for name, n := range count {
		out = append(out, fmt.Sprintf("%d%% %s", (n+5)/10, name))
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}
