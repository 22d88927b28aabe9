package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tulle-mesh/tulle/meshctl/mesh"
)

// rateLimits is what a waypoint says of its rate limits (waypoint/ratelimit.Status).
type rateLimits struct {
	Keys    int             `json:"keys"`
	MaxKeys int             `json:"maxKeys"`
	Rules   []rateLimitRule `json:"rules"`
}

type rateLimitRule struct {
	Policy  string `json:"policy"`
	Rule    string `json:"rule"`
	Backend string `json:"backend"`
	Shadow  bool   `json:"shadow,omitempty"`
	Fault   string `json:"fault,omitempty"`
	// FailureMode is open or closed. Problem is why the backend does not count now.
	FailureMode string    `json:"failureMode,omitempty"`
	Problem     string    `json:"problem,omitempty"`
	ProblemAt   time.Time `json:"problemAt,omitzero"`
	Limits      []struct {
		Requests uint64 `json:"requests"`
		Per      string `json:"per"`
		Burst    uint64 `json:"burst"`
	} `json:"limits,omitempty"`
	Parts     []string `json:"parts,omitempty"`
	Share     uint32   `json:"share,omitempty"`
	Decisions struct {
		Allowed       uint64 `json:"allowed"`
		Limited       uint64 `json:"limited"`
		ShadowLimited uint64 `json:"shadowLimited,omitempty"`
		FailedOpen    uint64 `json:"failedOpen,omitempty"`
		FailedClosed  uint64 `json:"failedClosed,omitempty"`
	} `json:"decisions"`
	Keys []rateLimitKey `json:"keys,omitempty"`
}

type rateLimitKey struct {
	Key       []string  `json:"key"`
	Allowed   uint64    `json:"allowed"`
	Limited   uint64    `json:"limited"`
	Share     uint32    `json:"share,omitempty"`
	Remaining []uint64  `json:"remaining"`
	Reset     []float64 `json:"reset"`
}

// waypointLimits is what one waypoint's pod says, as -o json prints it.
type waypointLimits struct {
	Waypoint string `json:"waypoint"`
	Gateway  string `json:"gateway"`
	rateLimits
}

func newRateLimit(s *streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "ratelimit",
		Aliases: []string{"ratelimits", "rl"},
		Short:   "See the rate limits that waypoints keep",
		Args:    noSuchCommand,
		RunE:    help,
	}
	t := newTarget(s, cmd)
	cmd.AddCommand(newRateLimitList(s, t), newRateLimitStatus(s, t))
	return cmd
}

// askLimits asks all waypoints, or those of one Gateway.
func askLimits(ctx context.Context, t *targetFlags, gateway string, query url.Values) ([]waypointLimits, error) {
	all, err := waypointsOf(ctx, t, gateway)
	if err != nil {
		return nil, err
	}
	answers, errs := mesh.Each(ctx, all, func(ctx context.Context, c *mesh.Component) (waypointLimits, error) {
		out := waypointLimits{Waypoint: c.Name, Gateway: c.Gateway}
		body, err := c.Get(ctx, "/ratelimits?"+query.Encode())
		if err != nil {
			return out, err
		}
		if err := json.Unmarshal(body, &out.rateLimits); err != nil {
			return out, fmt.Errorf("%s answers something else: %w", c, err)
		}
		return out, nil
	})
	var out []waypointLimits
	for i, a := range answers {
		if errs[i] == nil {
			out = append(out, a)
		}
	}
	failed := errors.Join(errs...)
	named := query.Get("policy") // NAMESPACE/ asks for all of a namespace, which may have none
	if named != "" && !strings.HasSuffix(named, "/") && failed == nil && !slices.ContainsFunc(out, func(a waypointLimits) bool { return len(a.Rules) > 0 }) {
		what := "the RateLimitPolicy " + named
		if rule := query.Get("rule"); rule != "" {
			what = "the rule " + rule + " of " + what
		}
		return nil, fmt.Errorf("no waypoint keeps %s; `meshctl ratelimit list` names those in force", what)
	}
	return out, failed
}

// rateLimitQuery reads POLICY or NAMESPACE/POLICY or NAMESPACE/POLICY/RULE.
func rateLimitQuery(args []string, namespace string) (url.Values, error) {
	q := url.Values{}
	if len(args) == 0 {
		if namespace != "" {
			q.Set("policy", namespace+"/")
		}
		return q, nil
	}
	parts := strings.Split(args[0], "/")
	switch {
	case len(parts) > 1 && namespace != "" && parts[0] != namespace:
		return nil, fmt.Errorf("%s is of namespace %s, and --namespace says %s", args[0], parts[0], namespace)
	case slices.Contains(parts, "") || len(parts) > 3 || len(parts) == 1 && namespace == "":
		return nil, fmt.Errorf("%q is not NAMESPACE/POLICY or NAMESPACE/POLICY/RULE (or POLICY with -n)", args[0])
	case len(parts) == 1:
		parts = append([]string{namespace}, parts...)
	}
	q.Set("policy", parts[0]+"/"+parts[1])
	if len(parts) == 3 {
		q.Set("rule", parts[2])
	}
	return q, nil
}

const (
	// maxKeysShown is how many keys of a rule a waypoint shows at once.
	maxKeysShown = 10_000
	// maxKeysCounted is how many of them `list` asks for, to count them.
	maxKeysCounted = 1000
)

// listedLimit is one rule with what all waypoints count together.
type listedLimit struct {
	Policy  string   `json:"policy"`
	Rule    string   `json:"rule"`
	Backend string   `json:"backend"`
	Limits  []string `json:"limits"`
	Key     []string `json:"key"`
	Shadow  bool     `json:"shadow"`
	Fault   string   `json:"fault,omitempty"`
	// State is ok, failing when the backend does not count at some waypoint, which
	// Problems tells of each, or notCounted when the policy cannot be kept, which Fault does.
	State       string   `json:"state"`
	Problems    []string `json:"problems,omitempty"`
	FailureMode string   `json:"failureMode,omitempty"`
	Waypoints   int      `json:"waypoints"`
	// Keys of all waypoints; MoreKeys tells that they were too many to count.
	Keys     int    `json:"keys"`
	MoreKeys bool   `json:"moreKeys,omitempty"`
	Allowed  uint64 `json:"allowed"`
	Limited  uint64 `json:"limited"`
	// ShadowLimited and Failed are those that passed, or not, for other reasons.
	ShadowLimited uint64 `json:"shadowLimited"`
	Failed        uint64 `json:"failed"`
}

func newRateLimitList(s *streams, t *targetFlags) *cobra.Command {
	var namespace, gateway string
	output := outputFlag("table")
	cmd := &cobra.Command{
		Use:     "list [NAMESPACE/POLICY[/RULE]]",
		Aliases: []string{"ls"},
		Short:   "List the rules of rate limits in force, with what they decided",
		Long: `Lists the rules of RateLimitPolicies that waypoints keep, with what all of them
decided together since they know the rule. STATE is ok; failing when a backend, such as
a Redis, does not count at some waypoint; or "not counted" when the policy cannot be
kept as it is written. The reason, and what becomes of requests, stands below.`,
		Example: `  meshctl ratelimit list
  meshctl ratelimit list -n shop -o wide
  meshctl ratelimit list shop/fair-use`,
		Args: oneArgument,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := cmp.Or(notEmpty(cmd, "waypoint"), namespaceFlag(cmd, namespace)); err != nil {
				return err
			}
			q, err := rateLimitQuery(args, namespace)
			if err != nil {
				return err
			}
			q.Set("keys", strconv.Itoa(maxKeysCounted))
			answers, failed := askLimits(cmd.Context(), t, gateway, q)
			if len(answers) == 0 {
				return failed
			}
			list := sumLimits(answers, time.Now())
			err = output.print(s.out, list, func() { printLimits(s, list, namespace, output.wide()) })
			return cmp.Or(failed, err)
		},
	}
	limitFlags(cmd, t, &namespace, &gateway)
	cmd.Flags().VarP(&output, "output", "o", outputUsage)
	return cmd
}

func limitFlags(cmd *cobra.Command, t *targetFlags, namespace, gateway *string) {
	cmd.Flags().StringVarP(namespace, "namespace", "n", "", "policies of this namespace only")
	cmd.Flags().StringVar(gateway, "waypoint", "", "waypoints of this Gateway only, NAME or NAMESPACE/NAME")
	_ = cmd.RegisterFlagCompletionFunc("namespace", t.completeNamespaces)
	_ = cmd.RegisterFlagCompletionFunc("waypoint", t.completeWaypoints)
	cmd.ValidArgsFunction = t.completeLimits
}

// States of a rule.
const (
	limitOK         = "ok"
	limitFailing    = "failing"
	limitNotCounted = "notCounted"
)

// freshProblem is the age from which on a problem is told with its age: it may be over by
// now, and nobody has asked since.
const freshProblem = 5 * time.Second

// problem is why the backend does not count.
func (r *rateLimitRule) problem(now time.Time) string {
	if age := now.Sub(r.ProblemAt); !r.ProblemAt.IsZero() && age > freshProblem {
		return fmt.Sprintf("%s (%s ago, and not asked since)", r.Problem, words(age))
	}
	return r.Problem
}

// uncounted says what becomes of requests that are not counted.
func uncounted(mode string) string {
	switch mode {
	case "open":
		return "; requests pass uncounted (failureMode Open)"
	case "closed":
		return "; requests get 503 (failureMode Closed)"
	}
	return ""
}

// sumLimits adds up what the waypoints say of each rule.
func sumLimits(answers []waypointLimits, now time.Time) []listedLimit {
	out := []listedLimit{}
	keys := map[string]map[string]bool{}
	for _, a := range answers {
		for _, r := range a.Rules {
			i := slices.IndexFunc(out, func(l listedLimit) bool { return l.Policy == r.Policy && l.Rule == r.Rule })
			if i < 0 {
				i = len(out)
				l := listedLimit{Policy: r.Policy, Rule: r.Rule, Backend: r.Backend, Key: append([]string{}, r.Parts...), Shadow: r.Shadow, Limits: []string{}, State: limitOK, FailureMode: r.FailureMode}
				for _, x := range r.Limits {
					l.Limits = append(l.Limits, limitText(x.Requests, x.Per, x.Burst))
				}
				out = append(out, l)
				keys[r.Policy+"/"+r.Rule] = map[string]bool{}
			}
			l := &out[i]
			l.Waypoints++
			switch {
			case r.Fault != "":
				l.State, l.Fault = limitNotCounted, r.Fault
			case r.Problem != "":
				if l.State == limitOK {
					l.State = limitFailing
				}
				l.Problems = append(l.Problems, a.Waypoint+": "+r.problem(now))
			}
			l.Allowed += r.Decisions.Allowed
			l.Limited += r.Decisions.Limited
			l.ShadowLimited += r.Decisions.ShadowLimited
			l.Failed += r.Decisions.FailedOpen + r.Decisions.FailedClosed
			for _, k := range r.Keys {
				keys[r.Policy+"/"+r.Rule][strings.Join(k.Key, "\x00")] = true
			}
			l.Keys = len(keys[r.Policy+"/"+r.Rule])
			l.MoreKeys = l.MoreKeys || len(r.Keys) >= maxKeysCounted
		}
	}
	slices.SortFunc(out, func(a, b listedLimit) int {
		return cmp.Or(cmp.Compare(a.Policy, b.Policy), cmp.Compare(a.Rule, b.Rule))
	})
	return out
}

// limitText is "100/1m", with "+200" for another burst.
func limitText(requests uint64, per string, burst uint64) string {
	if d, err := time.ParseDuration(per); err == nil {
		per = d.String()
		if strings.HasSuffix(per, "m0s") {
			per = strings.TrimSuffix(per, "0s")
		}
		if strings.HasSuffix(per, "h0m") {
			per = strings.TrimSuffix(per, "0m")
		}
	}
	text := fmt.Sprintf("%d/%s", requests, per)
	if burst != requests {
		text += fmt.Sprintf("+%d", burst)
	}
	return text
}

func printLimits(s *streams, list []listedLimit, namespace string, wide bool) {
	if len(list) == 0 {
		noLimits(s, namespace)
		return
	}
	head := []string{"POLICY", "RULE", "LIMITS", "KEY", "BACKEND", "KEYS", "ALLOWED", "LIMITED", "STATE"}
	if wide {
		head = append(head, "SHADOW", "FAILED", "WAYPOINTS")
	}
	rows := [][]string{head}
	var notes []string
	for _, l := range list {
		backend, state := l.Backend, l.State
		if l.State == limitNotCounted {
			state = "not counted"
			notes = append(notes, limitName(l.Policy, l.Rule)+" is not counted: "+l.Fault+uncounted(l.FailureMode))
		}
		for _, p := range l.Problems {
			notes = append(notes, limitName(l.Policy, l.Rule)+" is not counted at "+p+uncounted(l.FailureMode))
		}
		if l.Shadow {
			backend += " (shadow)"
		}
		limited := l.Limited
		if l.Shadow && !wide {
			limited += l.ShadowLimited
		}
		counted := strconv.Itoa(l.Keys)
		if l.MoreKeys {
			counted += "+"
		}
		row := []string{l.Policy, l.Rule, strings.Join(l.Limits, ","), strings.Join(l.Key, ","), backend, counted, strconv.FormatUint(l.Allowed, 10), strconv.FormatUint(limited, 10), state}
		if wide {
			row = append(row, strconv.FormatUint(l.ShadowLimited, 10), strconv.FormatUint(l.Failed, 10), strconv.Itoa(l.Waypoints))
		}
		rows = append(rows, row)
	}
	table(s.out, rows)
	printNotes(s, notes)
}

func limitName(policy, rule string) string {
	if rule == "" {
		return policy
	}
	return policy + "/" + rule
}

// noLimits says that there is nothing to list.
func noLimits(s *streams, namespace string) {
	where := ""
	if namespace != "" {
		where = " of namespace " + namespace
	}
	fmt.Fprintf(s.out, "no rate limits%s in force: no RateLimitPolicy%[1]s is attached to what a waypoint serves\n", where)
}

// printNotes writes what is wrong below a table.
func printNotes(s *streams, notes []string) {
	if len(notes) == 0 {
		return
	}
	fmt.Fprintln(s.out)
	mark := paint(s.outFile)(yellow, "‼ ")
	for _, note := range notes {
		fmt.Fprintln(s.out, mark+note)
	}
}

func newRateLimitStatus(s *streams, t *targetFlags) *cobra.Command {
	var (
		namespace, gateway string
		most               int
	)
	output := outputFlag("table")
	cmd := &cobra.Command{
		Use:   "status [NAMESPACE/POLICY[/RULE]]",
		Short: "Show live counters for each key, as each waypoint counts them",
		Long: `Shows each key that a waypoint counts itself: what is left of each limit, when it is
full again, the waypoint's share of the limit, and how many requests passed and were
refused. Rules that a Redis or a service counts have one line, without keys; when it
does not count, the reason stands below.`,
		Example: `  meshctl ratelimit status
  meshctl ratelimit status shop/fair-use
  meshctl ratelimit status shop/fair-use/per-client --keys 100
  meshctl ratelimit status fair-use -n shop -o json`,
		Args: oneArgument,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := cmp.Or(notEmpty(cmd, "waypoint"), namespaceFlag(cmd, namespace)); err != nil {
				return err
			}
			q, err := rateLimitQuery(args, namespace)
			if err != nil {
				return err
			}
			if most < 1 || most > maxKeysShown {
				return fmt.Errorf("--keys %d: must be 1 to %d", most, maxKeysShown)
			}
			q.Set("keys", strconv.Itoa(most))
			answers, failed := askLimits(cmd.Context(), t, gateway, q)
			if len(answers) == 0 {
				return failed
			}
			err = output.print(s.out, answers, func() { printKeys(s, answers, namespace, time.Now()) })
			return cmp.Or(failed, err)
		},
	}
	limitFlags(cmd, t, &namespace, &gateway)
	cmd.Flags().IntVar(&most, "keys", 20, "keys of each rule at most, the most limited first")
	cmd.Flags().VarP(&output, "output", "o", outputUsage)
	return cmd
}

// printKeys prints a line for each key that is counted in a waypoint; of rules that a
// backend counts, one for the rule.
func printKeys(s *streams, answers []waypointLimits, namespace string, now time.Time) {
	var notes []string
	rows := [][]string{{"POLICY", "RULE", "KEY", "REMAINING", "RESET", "SHARE", "ALLOWED", "LIMITED", "WAYPOINT"}}
	for _, a := range answers {
		for _, r := range a.Rules {
			if len(r.Keys) == 0 {
				note := "(none yet)"
				switch {
				case r.Fault != "":
					note = "(not counted)"
					notes = append(notes, limitName(r.Policy, r.Rule)+" is not counted: "+r.Fault+uncounted(r.FailureMode))
				case r.Problem != "":
					note = "(" + r.Backend + " fails)"
					notes = append(notes, limitName(r.Policy, r.Rule)+" is not counted at "+a.Waypoint+": "+r.problem(now)+uncounted(r.FailureMode))
				case r.Backend == "redis", r.Backend == "rateLimitService":
					note = "(counted by " + r.Backend + ")"
				}
				rows = append(rows, []string{r.Policy, r.Rule, note, "", "", "", strconv.FormatUint(r.Decisions.Allowed, 10), strconv.FormatUint(r.Decisions.Limited, 10), a.Waypoint})
			}
			for _, k := range r.Keys {
				key := strings.Join(k.Key, ",")
				if len(k.Key) == 0 {
					key = "(all)"
				}
				var remaining, reset []string
				for i := range k.Remaining {
					remaining = append(remaining, strconv.FormatUint(k.Remaining[i], 10))
				}
				for i := range k.Reset {
					reset = append(reset, strconv.FormatFloat(k.Reset[i], 'f', 1, 64)+"s")
				}
				share := ""
				if k.Share > 0 {
					share = fmt.Sprintf("%d%%", (k.Share*100+32768)>>16)
				}
				rows = append(rows, []string{r.Policy, r.Rule, key, strings.Join(remaining, ","), strings.Join(reset, ","), share,
					strconv.FormatUint(k.Allowed, 10), strconv.FormatUint(k.Limited, 10), a.Waypoint})
			}
		}
	}
	if len(rows) == 1 {
		noLimits(s, namespace)
		return
	}
	table(s.out, rows)
	slices.Sort(notes)
	printNotes(s, slices.Compact(notes))
}
