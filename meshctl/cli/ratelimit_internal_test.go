package cli

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"
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
		  {"policy": "pay/strict", "rule": "0", "backend": "redis", "shadow": true, "limits": [{"requests": 1, "per": "500ms", "burst": 1}], "decisions": {"allowed": 1, "limited": 0, "shadowLimited": 4, "failedOpen": 2},
		   "failureMode": "open", "problem": "redis redis.pay:6379: connection refused", "problemAt": "2026-11-21T12:00:00Z"},
		  {"policy": "pay/wrong", "rule": "", "backend": "", "fault": "no such service", "failureMode": "closed", "decisions": {"allowed": 0, "limited": 0}}]}`,
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

// noon is when the backend of answered failed last.
var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// Programs learn of a backend that does not count, too.
func TestRateLimitsForProgramsSayWhatFails(t *testing.T) {
	for _, l := range sumLimits(answered(t), noon) {
		want := map[string]string{"pay/strict": limitFailing, "pay/wrong": limitNotCounted, "shop/fair": limitOK}[l.Policy]
		if l.State != want || (len(l.Problems) > 0) != (want == limitFailing) || (l.Fault != "") != (want == limitNotCounted) {
			t.Errorf("%+v", l)
		}
	}
	var b bytes.Buffer
	printLimits(&streams{out: &b}, nil, "nosuch", false)
	if got := b.String(); !strings.Contains(got, "no rate limits of namespace nosuch in force") {
		t.Error(got)
	}
}

func TestRateLimitsOfAllWaypointsAreSummedUp(t *testing.T) {
	var b bytes.Buffer
	printLimits(&streams{out: &b}, sumLimits(answered(t), noon), "", false)
	want := `
POLICY      RULE        LIMITS             KEY       BACKEND         KEYS  ALLOWED  LIMITED  STATE
pay/strict  0           1/500ms            -         redis (shadow)  0     1        4        failing
pay/wrong   -           -                  -         -               0     0        0        not counted
shop/fair   per-client  10/1m,100/24h+200  identity  leases          2     15       4        ok

‼ pay/strict/0 is not counted at shop/waypoint-x: redis redis.pay:6379: connection refused; requests pass uncounted (failureMode Open)
‼ pay/wrong is not counted: no such service; requests get 503 (failureMode Closed)
`
	if got := b.String(); got != strings.TrimPrefix(want, "\n") {
		t.Errorf("got\n%s\nwant%s", got, want)
	}
}

func TestRateLimitStatusShowsKeys(t *testing.T) {
	var b bytes.Buffer
	printKeys(&streams{out: &b}, answered(t)[:1], "", noon.Add(90*time.Second))
	want := `
POLICY      RULE        KEY            REMAINING  RESET       SHARE  ALLOWED  LIMITED  WAYPOINT
shop/fair   per-client  a              0,90       58.1s,7.0s  92%    10       3        shop/waypoint-x
shop/fair   per-client  b              9,99       6.0s,1.0s   50%    1        0        shop/waypoint-x
pay/strict  0           (redis fails)  -          -           -      1        0        shop/waypoint-x
pay/wrong   -           (not counted)  -          -           -      0        0        shop/waypoint-x

‼ pay/strict/0 is not counted at shop/waypoint-x: redis redis.pay:6379: connection refused (1m30s ago, and not asked since); requests pass uncounted (failureMode Open)
‼ pay/wrong is not counted: no such service; requests get 503 (failureMode Closed)
`
	if got := b.String(); got != strings.TrimPrefix(want, "\n") {
		t.Errorf("got\n%s\nwant%s", got, want)
	}
}

func TestRateLimitNames(t *testing.T) {
	for _, c := range []struct{ argument, namespace, want string }{
		{"", "", ""}, {"", "shop", "policy=shop%2F"}, {"shop/fair", "", "policy=shop%2Ffair"}, {"fair", "shop", "policy=shop%2Ffair"},
		{"shop/fair/per-client", "", "policy=shop%2Ffair&rule=per-client"},
		{"fair", "", "error"}, {"shop/", "", "error"}, {"a/b/c/d", "", "error"}, {"shop/fair", "pay", "error"}, {"shop/fair", "shop", "policy=shop%2Ffair"},
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
