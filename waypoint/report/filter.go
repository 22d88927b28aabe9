package report

import (
	"fmt"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// ParseFilter reads the filter of a Tap from the parameters of a query: all that are
// given must hold. The error names the parameter.
//
//	service     part of namespace/hostname
//	route       part of the rule's name
//	method      exact
//	path        prefix; with a * anywhere, a pattern
//	status      200, 5xx, or a range 400-499
//	source      part of the workload, namespace/workload or identity
//	destination part of the endpoint's workload or address
//	policy      part of the name of the policy that decided
//	limit       part of the name of the limit that refused
//	min-latency a duration
//	decision    routed, denied, limited or failed
func ParseFilter(q url.Values) (func(*Live) bool, error) {
	var all []func(*Live) bool
	contains := func(get func(*Live) string) func(string) error {
		return func(v string) error {
			all = append(all, func(l *Live) bool { return strings.Contains(get(l), v) })
			return nil
		}
	}
	parameters := map[string]func(string) error{
		"service":     contains(func(l *Live) string { return l.Service }),
		"route":       contains(func(l *Live) string { return l.Route }),
		"source":      contains(func(l *Live) string { return l.SourceNamespace + "/" + l.Source + " " + l.Identity + " " + l.Client }),
		"destination": contains(func(l *Live) string { return l.Workload + " " + l.Endpoint }),
		"policy":      contains(func(l *Live) string { return l.Policy }),
		"limit":       contains(func(l *Live) string { return l.Limit }),
		"method": func(v string) error {
			all = append(all, func(l *Live) bool { return strings.EqualFold(l.Method, v) })
			return nil
		},
		"path": func(v string) error {
			if !strings.Contains(v, "*") {
				all = append(all, func(l *Live) bool { return strings.HasPrefix(l.Path, v) })
				return nil
			}
			parts := strings.Split(v, "*")
			for i := range parts {
				parts[i] = regexp.QuoteMeta(parts[i])
			}
			re, err := regexp.Compile("^" + strings.Join(parts, ".*") + "$")
			if err != nil {
				return err
			}
			all = append(all, func(l *Live) bool { return re.MatchString(l.Path) })
			return nil
		},
		"status": func(v string) error {
			low, high, err := parseStatus(v)
			all = append(all, func(l *Live) bool { return l.Status >= low && l.Status <= high })
			return err
		},
		"min-latency": func(v string) error {
			d, err := time.ParseDuration(v)
			if err != nil || d < 0 {
				return fmt.Errorf("%q is not a duration, such as 100ms", v)
			}
			all = append(all, func(l *Live) bool { return l.Millis >= millis(d) })
			return nil
		},
		"decision": func(v string) error {
			judge, ok := decisions[v]
			if !ok {
				return fmt.Errorf("%q is none of routed, denied, limited, failed", v)
			}
			all = append(all, judge)
			return nil
		},
	}
	for name, values := range q {
		read, ok := parameters[name]
		if !ok {
			return nil, fmt.Errorf("%s: no such filter", name)
		}
		for _, v := range values {
			if v == "" {
				continue
			}
			if err := read(v); err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	return func(l *Live) bool {
		for _, holds := range all {
			if !holds(l) {
				return false
			}
		}
		return true
	}, nil
}

var decisions = map[string]func(*Live) bool{
	"routed":  func(l *Live) bool { return l.Attempts > 0 },
	"denied":  func(l *Live) bool { return l.Flags == "UAEX" },
	"limited": func(l *Live) bool { return l.Limit != "" },
	"failed":  func(l *Live) bool { return l.Error != "" || l.Status >= 500 || l.Status == 0 },
}

// parseStatus reads 200, 5xx or 400-499.
func parseStatus(v string) (low, high int, err error) {
	wrong := fmt.Errorf("%q is not a status, such as 200, 5xx or 400-499", v)
	if len(v) == 3 && v[1:] == "xx" && v[0] >= '1' && v[0] <= '5' {
		low = int(v[0]-'0') * 100
		return low, low + 99, nil
	}
	from, to, ranged := strings.Cut(v, "-")
	if low, err = strconv.Atoi(from); err != nil {
		return 0, 0, wrong
	}
	if high = low; ranged {
		if high, err = strconv.Atoi(to); err != nil || high < low {
			return 0, 0, wrong
		}
	}
	return low, high, nil
}
