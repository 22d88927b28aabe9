package cli

import "testing"

func TestAServiceWithoutAWaypointIsToldWhichHaveOne(t *testing.T) {
	for want, known := range map[string][]string{
		"no waypoint stands before a service hello/wbe: no service uses one":                                nil,
		"no waypoint stands before a service hello/wbe: those that do are hello/api.x.svc, hello/web.x.svc": {"hello/web.x.svc", "hello/api.x.svc", "hello/web.x.svc"},
	} {
		if err := noWaypointBefore("hello/wbe", known); err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
	}
}
