package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/tulle-mesh/tulle/meshctl/explain"
	"github.com/tulle-mesh/tulle/meshctl/mesh"
)

// liveRequest is a request that has ended, as a waypoint tells of it
// (waypoint/report.Live).
type liveRequest struct {
	Waypoint        string    `json:"waypoint"`
	Time            time.Time `json:"time"`
	Source          string    `json:"source"`
	SourceNamespace string    `json:"sourceNamespace,omitempty"`
	Identity        string    `json:"identity"`
	Client          string    `json:"client"`
	Service         string    `json:"service"`
	Port            uint16    `json:"port"`
	Protocol        string    `json:"protocol"`
	Method          string    `json:"method,omitempty"`
	Authority       string    `json:"authority,omitempty"`
	Path            string    `json:"path,omitempty"`
	Status          int       `json:"status"`
	GRPC            *int      `json:"grpc,omitempty"`
	Millis          float64   `json:"ms"`
	HeadMillis      float64   `json:"headMs,omitempty"`
	Backend         string    `json:"backend,omitempty"`
	Endpoint        string    `json:"endpoint,omitempty"`
	Workload        string    `json:"workload,omitempty"`
	Attempts        int       `json:"attempts,omitempty"`
	Received        int64     `json:"received"`
	Sent            int64     `json:"sent"`
	Route           string    `json:"route,omitempty"`
	Policy          string    `json:"policy,omitempty"`
	Limit           string    `json:"limit,omitempty"`
	Flags           string    `json:"flags,omitempty"`
	Detail          string    `json:"detail,omitempty"`
	Error           string    `json:"error,omitempty"`
	RequestID       string    `json:"requestId,omitempty"`
	TraceID         string    `json:"traceId,omitempty"`
	UserAgent       string    `json:"userAgent,omitempty"`
	Missed          uint64    `json:"missed,omitempty"`
}

func newWaypointTap(s *streams) *cobra.Command {
	filters := map[string]*string{}
	var most int
	var limit time.Duration
	output := outputFlag("table")
	cmd := &cobra.Command{
		Use:   "tap [WAYPOINT]",
		Short: "Show live requests, with what decided on them",
		Long: `Shows requests as they end at the waypoints: who asked, what, the answer and how long
it took, and with -o wide or json the route, the policy, the limit and the endpoint
that decided. All filters that are given must hold. WAYPOINT is NAME or
NAMESPACE/NAME; all without one. Requests are not held up by being watched: when more
come than can be shown, it says how many were missed.`,
		Example: `  meshctl waypoint tap
  meshctl waypoint tap --service shop/api --status 5xx
  meshctl waypoint tap --decision denied -o json --max-requests 1
  meshctl waypoint tap --path '/orders/*' --min-latency 200ms -o wide`,
		Args: oneArgument,
	}
	t := newTarget(s, cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if most < 0 {
			return fmt.Errorf("--max-requests %d: must not be negative", most)
		}
		if err := checkTap(cmd, filters); err != nil {
			return err
		}
		gateway := ""
		if len(args) == 1 {
			gateway = args[0]
		}
		ctx := cmd.Context()
		if limit > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, limit)
			defer cancel()
		}
		proxies, err := waypointsOf(ctx, t, gateway)
		if err != nil {
			return err
		}
		q := url.Values{"session": {fmt.Sprintf("meshctl-%d-%d", os.Getpid(), time.Now().UnixNano())}, "wait": {"1s"}}
		for name, value := range filters {
			if *value != "" {
				q.Set(name, *value)
			}
		}
		return tap(ctx, proxies, q, most, func(r liveRequest) error { return printLive(s, output, r) })
	}
	flags := cmd.Flags()
	text := func(name, usage string) { filters[name] = flags.String(name, "", usage) }
	text("service", "part of the service's NAMESPACE/HOSTNAME")
	text("route", "part of the rule's name")
	text("method", "method")
	text("path", "beginning of the path, or a pattern with *")
	text("status", "status: 200, 5xx or 400-499")
	text("source", "part of the client's NAMESPACE/WORKLOAD, identity or address")
	text("destination", "part of the endpoint's workload or address")
	text("policy", "part of the name of the policy that decided")
	text("limit", "part of the name of the rate limit that refused")
	text("min-latency", "only requests that took that long, such as 100ms")
	text("decision", "routed, denied, limited or failed")
	_ = cmd.RegisterFlagCompletionFunc("service", t.completeQualifiedServices)
	_ = cmd.RegisterFlagCompletionFunc("method", cobra.FixedCompletions(methods, cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.RegisterFlagCompletionFunc("decision", cobra.FixedCompletions(tapDecisions, cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.RegisterFlagCompletionFunc("status", cobra.FixedCompletions([]string{"2xx", "3xx", "4xx", "5xx"}, cobra.ShellCompDirectiveNoFileComp))
	cmd.ValidArgsFunction = t.completeOneWaypoint
	flags.IntVar(&most, "max-requests", 0, "end after so many requests (default: with Ctrl-C)")
	flags.DurationVar(&limit, "for", 0, "end after that time")
	flags.VarP(&output, "output", "o", outputUsage)
	return cmd
}

// tapDecisions are what --decision takes.
var tapDecisions = []string{"routed", "denied", "limited", "failed"}

// tapStatus is what --status takes: 200, 5xx or 400-499.
var tapStatus = regexp.MustCompile(`^([1-5]xx|[0-9]{1,3}(-[0-9]{1,3})?)$`)

// checkTap refuses filters that no waypoint would understand, before one is asked.
func checkTap(cmd *cobra.Command, filters map[string]*string) error {
	names := slices.Sorted(maps.Keys(filters))
	if err := notEmpty(cmd, names...); err != nil {
		return err
	}
	for _, name := range names {
		value := *filters[name]
		if value == "" {
			continue
		}
		switch name {
		case "method":
			if err := (explain.HTTP{Method: value}).Check(); err != nil {
				return err
			}
		case "status":
			if !tapStatus.MatchString(value) {
				return fmt.Errorf("--status %q: must be a status, such as 200, 5xx or 400-499", value)
			}
		case "min-latency":
			if d, err := time.ParseDuration(value); err != nil || d < 0 {
				return fmt.Errorf("--min-latency %q: must be a duration, such as 100ms", value)
			}
		case "decision":
			if !slices.Contains(tapDecisions, value) {
				return fmt.Errorf("--decision %q: must be routed, denied, limited or failed", value)
			}
		}
	}
	return nil
}

// tap asks all proxies again and again, and shows what they tell.
func tap(ctx context.Context, proxies []*mesh.Component, q url.Values, most int, show func(liveRequest) error) error {
	ctx, cancel := context.WithCancel(ctx)
	var asking sync.WaitGroup
	defer asking.Wait()
	defer cancel()
	type told struct {
		list []liveRequest
		err  error
	}
	answers := make(chan told)
	for _, c := range proxies {
		asking.Go(func() {
			for ctx.Err() == nil {
				var a told
				body, err := c.Get(ctx, "/tap?"+q.Encode())
				if a.err = err; err == nil {
					a.err = json.Unmarshal(body, &a.list)
				}
				for i := range a.list {
					a.list[i].Waypoint = c.Name
				}
				select {
				case answers <- a:
				case <-ctx.Done():
					return
				}
				if a.err != nil {
					return
				}
			}
		})
	}
	shown, gone := 0, 0
	var errs []error
	for {
		select {
		case <-ctx.Done():
			return nil
		case a := <-answers:
			if a.err != nil {
				if ctx.Err() != nil {
					return nil
				}
				errs = append(errs, a.err)
				if gone++; gone == len(proxies) {
					return errors.Join(alike(errs)...)
				}
			}
			for _, r := range a.list {
				if err := show(r); err != nil {
					return err
				}
				if shown++; shown == most {
					return nil
				}
			}
		}
	}
}

// printLive writes one request.
func printLive(s *streams, output outputFlag, r liveRequest) error {
	if output == "json" {
		return json.NewEncoder(s.out).Encode(r)
	}
	if output == "yaml" {
		fmt.Fprintln(s.out, "---")
		return output.print(s.out, r, nil)
	}
	if r.Missed > 0 {
		fmt.Fprintf(s.out, "(%s were missed here)\n", count(int(r.Missed), "request"))
	}
	_, host, _ := strings.Cut(r.Service, "/")
	if parts := strings.SplitN(host, ".", 3); len(parts) > 2 && strings.HasPrefix(parts[2], "svc.") {
		host = parts[0] + "." + parts[1]
	}
	source := r.Source
	if source == "" {
		source = r.Client
	}
	if r.SourceNamespace != "" {
		source = r.SourceNamespace + "/" + source
	}
	status := fmt.Sprint(r.Status)
	if r.Status == 0 {
		status = "-"
	}
	if r.GRPC != nil {
		status += fmt.Sprintf(" grpc=%d", *r.GRPC)
	}
	line := fmt.Sprintf("%s  %s → %s:%d  %s %s  %s  %s", r.Time.Add(time.Duration(r.Millis*float64(time.Millisecond))).Local().Format("15:04:05.000"),
		source, host, r.Port, harmless(r.Method), harmless(r.Path), status, millisText(r.Millis))
	if r.Protocol == "tcp" {
		line = fmt.Sprintf("%s  %s → %s:%d  connection  %s up, %s down  %s", r.Time.Local().Format("15:04:05.000"), source, host, r.Port,
			bytesText(uint64(r.Received)), bytesText(uint64(r.Sent)), millisText(r.Millis))
	}
	add := func(name, value string) {
		if value != "" {
			line += "  " + name + "=" + harmless(value)
		}
	}
	add("flags", r.Flags)
	add("limit", r.Limit)
	if r.Flags == "UAEX" || output.wide() {
		add("policy", r.Policy)
	}
	if output.wide() {
		add("route", r.Route)
		add("to", r.Endpoint)
		if r.Attempts > 1 {
			add("attempts", fmt.Sprint(r.Attempts))
		}
		add("id", r.RequestID)
		add("trace", r.TraceID)
		add("waypoint", r.Waypoint)
	}
	add("detail", r.Detail)
	add("error", r.Error)
	fmt.Fprintln(s.out, line)
	return nil
}

// harmless keeps what a client sent from changing the terminal.
func harmless(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return '?'
		}
		return r
	}, s)
}
