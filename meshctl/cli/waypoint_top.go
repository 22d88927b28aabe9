package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
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
