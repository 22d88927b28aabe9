package snapshot_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	apisecurity "github.com/tulle-mesh/tulle/api/security"
	apiworkload "github.com/tulle-mesh/tulle/api/workload"
	"github.com/tulle-mesh/tulle/istiod-lite/snapshot"
	"github.com/tulle-mesh/tulle/istiod-lite/translate"
)

func workload(name, ip string) *translate.Resource {
	return &translate.Resource{Name: name, Aliases: []string{"/" + ip}, Services: []string{"shop/web"},
		Body: &apiworkload.Address{Type: &apiworkload.Address_Workload{Workload: &apiworkload.Workload{Uid: name, Hostname: ip,
			Services: map[string]*apiworkload.PortList{"a": {}, "b": {}, "c": {}, "d": {}}}}}}
}

func mesh(resources ...*translate.Resource) *translate.Mesh {
	m := &translate.Mesh{Addresses: map[string]*translate.Resource{}, Authorizations: map[string]*translate.Resource{}}
	for _, r := range resources {
		if _, ok := r.Body.(*apisecurity.Authorization); ok {
			m.Authorizations[r.Name] = r
		} else {
			m.Addresses[r.Name] = r
		}
	}
	return m
}

func next(t *testing.T, prev *snapshot.Snapshot, m *translate.Mesh) (*snapshot.Snapshot, map[string][]string) {
	t.Helper()
	s, change, err := snapshot.Next(prev, m)
	if err != nil {
		t.Fatal(err)
	}
	names := map[string][]string{}
	for url, deltas := range change.Deltas {
		for _, d := range deltas {
			mark := "~"
			switch {
			case d.Old == nil:
				mark = "+"
			case d.New == nil:
				mark = "-"
			}
			names[url] = append(names[url], mark+d.Name)
		}
		slices.Sort(names[url])
	}
	return s, names
}

func TestVersionsAreHashesOfTheContent(t *testing.T) {
	a, _ := next(t, nil, mesh(workload("a", "1"), workload("b", "2")))
	b, _ := next(t, nil, mesh(workload("b", "2"), workload("a", "1")))
	c, _ := next(t, nil, mesh(workload("a", "3")))
	version := func(s *snapshot.Snapshot, name string) string {
		return s.Sets[snapshot.AddressType].Entries[name].Version
	}
	if version(a, "a") != version(b, "a") || version(a, "b") != version(b, "b") {
		t.Error("the same content has two versions: a restart would send everything again")
	}
	if version(a, "a") == version(c, "a") || version(a, "a") == version(a, "b") {
		t.Error("other content has the same version: a change would not be sent")
	}
	alias := workload("a", "1")
	alias.Aliases = nil
	if d, _ := next(t, nil, mesh(alias)); version(d, "a") == version(a, "a") {
		t.Error("an alias gone has the same version")
	}
}

func TestOnlyWhatDiffersIsAChange(t *testing.T) {
	policy := &translate.Resource{Name: "shop/p", Body: &apisecurity.Authorization{Name: "p", Namespace: "shop"}}
	keep := workload("keep", "1")
	s1, names := next(t, nil, mesh(keep, workload("change", "2"), workload("go", "3")))
	if s1.Serial != 1 || fmt.Sprint(names[snapshot.AddressType]) != "[+change +go +keep]" {
		t.Errorf("first: serial %d, %v", s1.Serial, names)
	}
	s2, names := next(t, s1, mesh(keep, workload("change", "22"), workload("come", "4"), policy))
	if s2.Serial != 2 || fmt.Sprint(names[snapshot.AddressType]) != "[+come -go ~change]" || fmt.Sprint(names[snapshot.AuthorizationType]) != "[+shop/p]" {
		t.Errorf("second: serial %d, %v", s2.Serial, names)
	}
	if s1.Sets[snapshot.AddressType].Entries["keep"] != s2.Sets[snapshot.AddressType].Entries["keep"] {
		t.Error("what did not change was packed again")
	}
	s3, names := next(t, s2, mesh(workload("keep", "1"), workload("change", "22"), workload("come", "4"), policy))
	if s3.Serial != 2 || len(names) != 0 {
		t.Errorf("new objects of the same content: serial %d, %v", s3.Serial, names)
	}
	if len(s1.Sets[snapshot.AddressType].Entries) != 3 {
		t.Error("an older snapshot changed")
	}
}

// TestWireIsAResponse reads entries as a proxy does, whatever their sizes.
func TestWireIsAResponse(t *testing.T) {
	for _, n := range []int{1, 40, 127, 128, 200, 20_000} {
		r := workload("w", strings.Repeat("x", n))
		r.Aliases = append(r.Aliases, "/2")
		s, _ := next(t, nil, mesh(r))
		e := s.Sets[snapshot.AddressType].Entries["w"]
		var got discovery.DeltaDiscoveryResponse
		if err := proto.Unmarshal(append(slices.Clone(e.Wire), e.Wire...), &got); err != nil {
			t.Fatal(err)
		}
		body, err := anypb.New(r.Body)
		if err != nil {
			t.Fatal(err)
		}
		want := &discovery.Resource{Name: "w", Version: e.Version, Aliases: r.Aliases, Resource: body}
		for _, resource := range got.Resources {
			into := &apiworkload.Address{}
			if err := resource.Resource.UnmarshalTo(into); err != nil {
				t.Fatal(err)
			}
			if !proto.Equal(into, r.Body) {
				t.Errorf("%d bytes: body %v", n, into)
			}
			want.Resource.Value = e.Body()
			if !proto.Equal(resource, want) {
				t.Errorf("%d bytes: got %v", n, resource)
			}
		}
		if len(got.Resources) != 2 || len(e.Version) != 32 {
			t.Errorf("%d bytes: %d resources, version %q", n, len(got.Resources), e.Version)
		}
	}
}

// TestCountsFollowTheContent compares a set that came about change by change
// with the same content made at once.
func TestCountsFollowTheContent(t *testing.T) {
	s, _ := next(t, nil, mesh(workload("a", "1"), workload("b", "2")))
	s, _ = next(t, s, mesh(workload("a", "11111"), workload("c", "3"), workload("d", "4")))
	s, _ = next(t, s, mesh(workload("a", "11111"), workload("d", "444")))
	at, _ := next(t, nil, mesh(workload("a", "11111"), workload("d", "444")))
	set, want := s.Sets[snapshot.AddressType], at.Sets[snapshot.AddressType]
	if set.Bytes != want.Bytes || set.Workloads != 2 || len(set.Entries) != 2 {
		t.Errorf("%d bytes of %d workloads in %d entries, want %d bytes", set.Bytes, set.Workloads, len(set.Entries), want.Bytes)
	}
}

func TestATypeWithoutChangesKeepsItsSet(t *testing.T) {
	policy := &translate.Resource{Name: "shop/p", Body: &apisecurity.Authorization{Name: "p", Namespace: "shop"}}
	s1, _ := next(t, nil, mesh(workload("a", "1"), policy))
	s2, _ := next(t, s1, mesh(workload("a", "2"), policy))
	if s1.Sets[snapshot.AuthorizationType] != s2.Sets[snapshot.AuthorizationType] || s1.Sets[snapshot.AddressType] == s2.Sets[snapshot.AddressType] {
		t.Error("sets do not follow what changed")
	}
}

func TestLookups(t *testing.T) {
	s, _ := next(t, nil, mesh(workload("a", "1"), workload("b", "1"), workload("c", "2")))
	set := s.Sets[snapshot.AddressType]
	for key, want := range map[string]int{"a": 1, "/1": 2, "/2": 1, "/3": 0, "shop/web": 0} {
		if got := len(set.Lookup(key)); got != want {
			t.Errorf("Lookup(%q) found %d, want %d", key, got, want)
		}
	}
	if got := len(set.Members("shop/web")); got != 3 {
		t.Errorf("Members found %d", got)
	}
	if e := set.Entries["a"]; !e.IsWorkload() || e.Size() < len(e.Body()) {
		t.Errorf("entry %+v", e)
	}
	if set.Workloads != 3 {
		t.Errorf("%d workloads", set.Workloads)
	}
}

func TestABodyThatCannotBePackedStaysAsItWasAndHoldsNobodyUp(t *testing.T) {
	s1, _ := next(t, nil, mesh(workload("a", "1"), workload("b", "1")))
	s2, change, err := snapshot.Next(s1, mesh(workload("a", "\xff"), workload("b", "2"), workload("c", "\xff")))
	if err == nil || !strings.Contains(err.Error(), "Address a") || !strings.Contains(err.Error(), "Address c") {
		t.Errorf("error %v, want one that names a and c", err)
	}
	before, after := s1.Sets[snapshot.AddressType].Entries, s2.Sets[snapshot.AddressType].Entries
	if after["a"] != before["a"] || after["b"] == before["b"] || after["c"] != nil {
		t.Errorf("a, b, c are %v, want the old, a new and none", after)
	}
	if deltas := change.Deltas[snapshot.AddressType]; len(deltas) != 1 || deltas[0].Name != "b" {
		t.Errorf("change %v, want b", deltas)
	}
	s3, _ := next(t, s2, mesh(workload("a", "3"), workload("b", "2")))
	if e := s3.Sets[snapshot.AddressType].Entries["a"]; e == nil || e == before["a"] {
		t.Error("what can be packed again is not")
	}
}

func BenchmarkOneChangeOf10000(b *testing.B) {
	resources := make([]*translate.Resource, 10_000)
	for i := range resources {
		resources[i] = workload(fmt.Sprintf("Kubernetes//Pod/shop/web-%d", i), fmt.Sprintf("10.0.%d.%d", i/250, i%250))
	}
	s, _, err := snapshot.Next(nil, mesh(resources...))
	if err != nil {
		b.Fatal(err)
	}
	i := 0
	for b.Loop() {
		b.StopTimer()
		i++
		resources[5] = workload("Kubernetes//Pod/shop/web-5", fmt.Sprintf("10.9.9.%d", i))
		m := mesh(resources...)
		b.StartTimer()
		s, _, err = snapshot.Next(s, m)
		if err != nil {
			b.Fatal(err)
		}
	}
}
