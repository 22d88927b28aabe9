package install

import (
	"slices"
	"testing"
	"time"
)

func TestATroubleThatComesAndGoesIsToldOnce(t *testing.T) {
	state := func(ready int, troubles ...string) Component {
		c := Component{Name: "ztunnel", Ready: ready, Wanted: 2, Done: ready == 2, troubles: troubles}
		for _, trouble := range troubles {
			c.Reasons = append(c.Reasons, "ztunnel-1: "+trouble)
		}
		return c
	}
	begin := time.Now()
	said := make(news)
	var got []string
	tell := func(after time.Duration, c Component) {
		if line := said.of(c, begin.Add(after)); line != "" {
			got = append(got, line)
		}
	}
	tell(0, state(0, "starting"))
	tell(time.Second, state(1, "Unhealthy"))
	tell(2*time.Second, state(0, "starting", "Unhealthy"))
	tell(3*time.Second, state(1, "starting")) // Unhealthy has not stood
	tell(4*time.Second, state(1, "Unhealthy"))
	tell(7*time.Second, state(0, "Unhealthy")) // now it has
	for i := range 60 {
		now := time.Duration(8+i) * time.Second
		if i%2 == 0 {
			tell(now, state(1, "Unhealthy"))
		} else {
			tell(now, state(0))
		}
	}
	tell(80*time.Second, state(2))
	tell(81*time.Second, state(1, "Unhealthy"))
	tell(82*time.Second, state(2))
	want := []string{
		"ztunnel: 0/2 ready, rolling out",
		"ztunnel: 1/2 ready, rolling out",
		"ztunnel: 0/2 ready\n  ztunnel-1: Unhealthy",
		"ztunnel: 2/2 ready",
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}
