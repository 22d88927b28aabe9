package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
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

// topAnswer is what a waypoint sums up (waypoint/report.Summary).
type topAnswer struct {
	Time   time.Time  `json:"time"`
	Active int64      `json:"active"`
	Routes []topRoute `json:"routes"`
}

type topRoute struct {
	Service  string   `json:"service"`
	Route    string   `json:"route"`
	Protocol string   `json:"protocol"`
	Requests uint64   `json:"requests"`
	Failed   uint64   `json:"failed"`
	Limited  uint64   `json:"limited"`
	Denied   uint64   `json:"denied"`
	Retries  uint64   `json:"retries"`
	Bytes    uint64   `json:"bytes"`
	Buckets  []uint64 `json:"buckets"`
}

// topLine is one service and route between two looks, over all proxies.
type topLine struct {
	Service  string  `json:"service"`
	Route    string  `json:"route,omitempty"`
	Protocol string  `json:"protocol"`
	Rate     float64 `json:"requestsPerSecond"`
	// Success is the part of the requests that did not fail, 0 to 1.
	Success float64 `json:"success"`
	P50     float64 `json:"p50Millis"`
	P99     float64 `json:"p99Millis"`
	Denied  uint64  `json:"denied,omitempty"`
	Limited uint64  `json:"limited,omitempty"`
	Retries uint64  `json:"retries,omitempty"`
	Bytes   float64 `json:"bytesPerSecond"`

	buckets          []uint64
	requests, failed uint64
}

func newWaypointTop(s *streams) *cobra.Command {
	var (
		interval time.Duration
		once     bool
		service  string
	)
	output := outputFlag("table")
	cmd := &cobra.Command{
		Use:   "top [WAYPOINT]",
		Short: "Show requests per second, success and latency by service and route, live",
		Long: `Shows what passes through the waypoints now: for each service and route the requests
per second, the part of them that succeeded, and how long half of them and 99 % of
them took at most (to a quarter of the value). WAYPOINT is NAME or NAMESPACE/NAME; all
without one. Ends with Ctrl-C, or after one look with --once.`,
		Example: `  meshctl waypoint top
  meshctl waypoint top shop/waypoint --interval 5s
  meshctl waypoint top --once -o json`,
		Args: oneArgument,
	}
	t := newTarget(s, cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if interval < 200*time.Millisecond {
			return fmt.Errorf("--interval %v: must be 200ms or more", interval)
		}
		if cmd.Flags().Changed("service") {
			if err := explain.CheckService(service); err != nil {
				return err
			}
		}
		gateway := ""
		if len(args) == 1 {
			gateway = args[0]
		}
		ctx := cmd.Context()
		proxies, err := waypointsOf(ctx, t, gateway)
		if err != nil {
			return err
		}
		before, err := lookAtAll(ctx, proxies)
		if err != nil {
			return err
		}
		screen := isTerminal(s.outFile) && !once && output == "table"
		for {
			timer := time.NewTimer(interval)
			select {
			case <-timer.C:
			case <-ctx.Done():
				timer.Stop()
				return nil
			}
			now, err := lookAtAll(ctx, proxies)
			if err != nil {
				if ctx.Err() != nil {
					return nil
				}
				return err
			}
			lines := topLines(before, now, service)
			before = now
			if screen {
				fmt.Fprint(s.out, "\x1b[H\x1b[2J")
			}
			if err := output.print(s.out, lines, func() { topTable(s, now, lines, output.wide()) }); err != nil || once {
				return err
			}
			if !screen {
				fmt.Fprintln(s.out)
			}
		}
	}
	flags := cmd.Flags()
	flags.DurationVar(&interval, "interval", 2*time.Second, "time between two looks")
	flags.BoolVar(&once, "once", false, "look once, over one interval")
	flags.StringVar(&service, "service", "", "only this service: NAME, NAMESPACE/NAME or its hostname")
	_ = cmd.RegisterFlagCompletionFunc("service", t.completeQualifiedServices)
	cmd.ValidArgsFunction = t.completeOneWaypoint
	flags.VarP(&output, "output", "o", outputUsage)
	return cmd
}

// lookAtAll asks all proxies. One that has gone since is left out, unless all have.
func lookAtAll(ctx context.Context, proxies []*mesh.Component) ([]topAnswer, error) {
	answers, errs := mesh.Each(ctx, proxies, func(ctx context.Context, c *mesh.Component) (topAnswer, error) {
		var a topAnswer
		body, err := c.Get(ctx, "/top")
		if err == nil {
			err = json.Unmarshal(body, &a)
		}
		return a, err
	})
	good := false
	for _, err := range errs {
		good = good || err == nil
	}
	if !good {
		return nil, errors.Join(alike(errs)...)
	}
	return answers, nil
}

// topLines is what happened between two looks.
func topLines(before, now []topAnswer, service string) []topLine {
	type key struct{ service, route, protocol string }
	lines := map[key]*topLine{}
	for i := range now {
		seconds := now[i].Time.Sub(before[i].Time).Seconds()
		if seconds <= 0 {
			continue // one of both looks failed
		}
		was := map[key]topRoute{}
		for _, r := range before[i].Routes {
			was[key{r.Service, r.Route, r.Protocol}] = r
		}
		for _, r := range now[i].Routes {
			if service != "" && !namesService(service, r.Service) {
				continue
			}
			k := key{r.Service, r.Route, r.Protocol}
			old := was[k]
			if old.Requests > r.Requests { // the proxy began anew
				old = topRoute{}
			}
			l := lines[k]
			if l == nil {
				l = &topLine{Service: r.Service, Route: r.Route, Protocol: r.Protocol}
				lines[k] = l
			}
			n := r.Requests - old.Requests
			l.requests, l.failed = l.requests+n, l.failed+r.Failed-old.Failed
			l.Rate += float64(n) / seconds
			l.Bytes += float64(r.Bytes-old.Bytes) / seconds
			l.Denied, l.Limited, l.Retries = l.Denied+r.Denied-old.Denied, l.Limited+r.Limited-old.Limited, l.Retries+r.Retries-old.Retries
			for j, b := range r.Buckets {
				if j < len(old.Buckets) {
					b -= old.Buckets[j]
				}
				for len(l.buckets) <= j {
					l.buckets = append(l.buckets, 0)
				}
				l.buckets[j] += b
			}
		}
	}
	out := []topLine{}
	for _, l := range lines {
		l.Success = 1
		if l.requests > 0 {
			l.Success = 1 - float64(l.failed)/float64(l.requests)
		}
		l.P50, l.P99 = quantile(l.buckets, 0.5), quantile(l.buckets, 0.99)
		out = append(out, *l)
	}
	slices.SortFunc(out, func(a, b topLine) int {
		return cmp.Or(cmp.Compare(b.Rate, a.Rate), cmp.Compare(a.Service, b.Service), cmp.Compare(a.Route, b.Route))
	})
	return out
}

// quantile reads the waypoints' buckets, of 0.1 ms times 1.25 to the power of their
// place, in milliseconds.
func quantile(buckets []uint64, q float64) float64 {
	var total, sum uint64
	for _, n := range buckets {
		total += n
	}
	want := uint64(math.Ceil(q * float64(total)))
	for i, n := range buckets {
		if sum += n; n > 0 && sum >= want {
			return 0.1 * math.Pow(1.25, float64(i))
		}
	}
	return 0
}

func millisText(ms float64) string {
	switch {
	case ms == 0:
		return ""
	case ms < 10:
		return fmt.Sprintf("%.1fms", ms)
	case ms < 10000:
		return fmt.Sprintf("%.0fms", ms)
	}
	return fmt.Sprintf("%.1fs", ms/1000)
}

func topTable(s *streams, now []topAnswer, lines []topLine, wide bool) {
	var active int64
	for _, a := range now {
		active += a.Active
	}
	fmt.Fprintf(s.out, "%s, %s under way\n\n", count(len(now), "waypoint proxy"), count(int(active), "request"))
	head := []string{"SERVICE", "ROUTE", "RPS", "SUCCESS", "P50", "P99"}
	if wide {
		head = append(head, "PROTOCOL", "DENIED", "LIMITED", "RETRIES", "BYTES/S")
	}
	rows := [][]string{head}
	for _, l := range lines {
		if l.requests == 0 && !wide {
			continue
		}
		_, host, _ := strings.Cut(l.Service, "/")
		if parts := strings.SplitN(host, ".", 3); len(parts) > 2 && strings.HasPrefix(parts[2], "svc.") && !wide {
			host = parts[0] + "." + parts[1]
		}
		row := []string{host, l.Route, fmt.Sprintf("%.1f", l.Rate), fmt.Sprintf("%.1f%%", 100*l.Success), millisText(l.P50), millisText(l.P99)}
		if wide {
			row = append(row, l.Protocol, fmt.Sprint(l.Denied), fmt.Sprint(l.Limited), fmt.Sprint(l.Retries), bytesText(uint64(l.Bytes)))
		}
		rows = append(rows, row)
	}
	if len(rows) == 1 {
		fmt.Fprintln(s.out, "no requests in this time")
		return
	}
	table(s.out, rows)
}

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
