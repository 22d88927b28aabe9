package upstream_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/waypoint/message"
	"github.com/tulle-mesh/tulle/waypoint/upstream"
)

func TestTheFirstKeyThatARequestHasDecides(t *testing.T) {
	b, err := upstream.New(upstream.Config{Name: "b", Balancer: upstream.RingHash, Hash: []upstream.HashKey{
		{Header: "x-user"}, {Query: "user"}, {Cookie: upstream.HashCookie{Name: "sid", Path: "/app", Make: true, TTL: time.Hour}},
	}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	source := netip.MustParseAddr("10.0.0.1")
	r := &message.Request{Query: "a=b&user=ann", Header: message.Header{{Name: "x-user", Value: "bob"}, {Name: "cookie", Value: "x=y; sid=42"}}}
	for _, want := range []string{"bob", "ann", "42"} {
		hash, hashed, set := b.Key(r, source)
		if hash != upstream.HashString(want) || !hashed || set != "" {
			t.Errorf("%s: %d %v %q", want, hash, hashed, set)
		}
		switch want {
		case "bob":
			r.Header.Del("x-user")
		case "ann":
			r.Query = "username=x"
		}
	}
	r.Header = nil
	hash, hashed, set := b.Key(r, source)
	value, rest, _ := strings.Cut(strings.TrimPrefix(set, "sid="), ";")
	if !hashed || hash != upstream.HashString(value) || !strings.Contains(rest, "Path=/app") || !strings.Contains(rest, "Max-Age=3600") {
		t.Errorf("%d %v %q", hash, hashed, set)
	}
	if err := b.Configure(upstream.Config{Name: "b", Balancer: upstream.Maglev, Hash: []upstream.HashKey{{Source: true}}}); err != nil {
		t.Fatal(err)
	}
	if hash, hashed, _ := b.Key(nil, source); !hashed || hash != upstream.HashAddr(source) {
		t.Error("a connection is not known by its source")
	}
	if err := b.Configure(upstream.Config{Name: "b", Hash: []upstream.HashKey{{Source: true}}}); err != nil {
		t.Fatal(err)
	}
	if _, hashed, _ := b.Key(nil, source); hashed {
		t.Error("a balancer without keys looks for one")
	}
}

func TestTablesAreOfTheSizeThatIsWanted(t *testing.T) {
	for _, cfg := range []upstream.Config{
		{Name: "b", Balancer: upstream.Maglev, TableSize: 65536},
		{Name: "b", Balancer: upstream.Maglev, TableSize: 1 << 30},
		{Name: "b", Balancer: upstream.RingHash, RingSize: 1 << 20},
	} {
		if _, err := upstream.New(cfg, nil); err == nil {
			t.Errorf("%+v is taken", cfg)
		}
	}
	for _, cfg := range []upstream.Config{
		{Name: "b", Balancer: upstream.Maglev, TableSize: 257},
		{Name: "b", Balancer: upstream.RingHash, RingSize: 8192},
	} {
		b, err := upstream.New(cfg, nil)
		if err != nil {
			t.Fatal(err)
		}
		endpoints := []upstream.Endpoint{
			{UID: "a", Addr: netip.MustParseAddrPort("10.0.0.1:80"), Weight: 1, Healthy: true},
			{UID: "b", Addr: netip.MustParseAddrPort("10.0.0.2:80"), Weight: 1, Healthy: true},
		}
		if err := b.Update(endpoints); err != nil {
			t.Fatal(err)
		}
		seen := map[string]int{}
		for i := range 1000 {
			target, err := b.Pick(upstream.Options{Hash: upstream.HashString(string(rune('a' + i))), Hashed: true})
			if err != nil {
				t.Fatal(err)
			}
			seen[target.Endpoint().UID]++
		}
		if seen["a"] < 300 || seen["b"] < 300 {
			t.Errorf("%v: %v", cfg.Balancer, seen)
		}
		b.Close()
	}
}
