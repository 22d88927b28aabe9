package cli

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
)

// answered is what two replicas of a waypoint say.
func answered(t *testing.T) []waypointLimits {
	t.Helper()
	var out []waypointLimits
	for _, text := range []string{
		`{"keys": 2, "maxKeys": 100000, "rules": [
		  {"policy": "shop/fair", "rule": "per-client", "backend": "leases", "limits": [{"requests": 10, "per": "1m0s", "burst": 10}, {"requests": 100, "per": "24h0m0s", "burst": 200}],
		   "parts": ["identity"], "share": 32768, "decisions": {"allowed": 10, "limited": 3},
		   "keys": [{"key": ["a"], "allowed": 10, "limited": 3, "share": 60000, "remaining": [0, 90], "reset": [58.12, 7]}, {"key": ["b"], "allowed": 1, "limited": 0, "share": 32768, "remaining": [9, 99], "reset": [6, 1]}]},
		  {"policy": "pay/strict", "rule": "0", "backend": "redis", "shadow": true, "limits": [{"requests": 1, "per": "500ms", "burst": 1}], "decisions": {"allowed": 1, "limited": 0, "shadowLimited": 4, "failedOpen": 2}},
		  {"policy": "pay/wrong", "rule": "", "backend": "", "fault": "no such service", "decisions": {"allowed": 0, "limited": 0}}]}`,
		`{"keys": 1, "maxKeys": 100000, "rules": [
		  {"policy": "shop/fair", "rule": "per-client", "backend": "leases", "limits": [{"requests": 10, "per": "1m0s", "burst": 10}, {"requests": 100, "per": "24h0m0s", "burst": 200}],
		   "parts": ["identity"], "share": 32768, "decisions": {"allowed": 5, "limited": 1}, "keys": [{"key": ["a"], "allowed": 5, "limited": 1, "share": 5536, "remaining": [1, 2], "reset": [1, 2]}]}]}`,
	} {
		a := waypointLimits{Waypoint: "shop/waypoint-x", Gateway: "shop/waypoint"}
		if err := json.Unmarshal([]byte(text), &a.rateLimits); err != nil {
			t.Fatal(err)
		}
		out = append(out, a)
	}
	return out
}

func TestRateLimitsOfAllWaypointsAreSummedUp(t *testing.T) {
	var b bytes.Buffer
	printLimits(&streams{out: &b}, sumLimits(answered(t)), false)
	want := `
POLICY      RULE        LIMITS                        KEY       BACKEND         KEYS  ALLOWED  LIMITED
pay/strict  0           1/500ms                       -         redis (shadow)  0     1        4
pay/wrong   -           not counted: no such service  -         -               0     0        0
shop/fair   per-client  10/1m,100/24h+200             identity  leases          2     15       4
`
	if got := b.String(); got != strings.TrimPrefix(want, "\n") {
		t.Errorf("got\n%s\nwant%s", got, want)
	}
}

func TestRateLimitStatusShowsKeys(t *testing.T) {
	var b bytes.Buffer
	printKeys(&streams{out: &b}, answered(t)[:1])
	want := `
POLICY      RULE        KEY                             REMAINING  RESET       SHARE  ALLOWED  LIMITED  WAYPOINT
shop/fair   per-client  a                               0,90       58.1s,7.0s  92%    10       3        shop/waypoint-x
shop/fair   per-client  b                               9,99       6.0s,1.0s   50%    1        0        shop/waypoint-x
pay/strict  0           (counted by redis)              -          -           -      1        0        shop/waypoint-x
pay/wrong   -           (not counted: no such service)  -          -           -      0        0        shop/waypoint-x
`
	if got := b.String(); got != strings.TrimPrefix(want, "\n") {
		t.Errorf("got\n%s\nwant%s", got, want)
	}
}

func TestRateLimitNames(t *testing.T) {
	for _, c := range []struct{ argument, namespace, want string }{
		{"", "", ""}, {"", "shop", "policy=shop%2F"}, {"shop/fair", "", "policy=shop%2Ffair"}, {"fair", "shop", "policy=shop%2Ffair"},
		{"shop/fair/per-client", "", "policy=shop%2Ffair&rule=per-client"},
		{"fair", "", "error"}, {"shop/", "", "error"}, {"a/b/c/d", "", "error"},
	} {
		var args []string
		if c.argument != "" {
			args = []string{c.argument}
		}
		q, err := rateLimitQuery(args, c.namespace)
		got := q.Encode()
		if err != nil {
			got = "error"
		}
		if got != c.want {
			t.Errorf("%q in %q: %s, want %s", c.argument, c.namespace, got, c.want)
		}
	}
}

func TestLimitsAreToldInTheirOwnUnits(t *testing.T) {
	for per, want := range map[string]string{
		"500ms": "5/500ms", "10s": "5/10s", "30s": "5/30s", "1m0s": "5/1m", "90s": "5/1m30s", "10m0s": "5/10m", "1h0m0s": "5/1h",
		"10h0m0s": "5/10h", "1h30m0s": "5/1h30m", "24h0m0s": "5/24h",
	} {
		if got := limitText(5, per, 5); got != want {
			t.Errorf("%s: %s, want %s", per, got, want)
		}
	}
}
