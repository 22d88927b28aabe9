package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tulle-mesh/tulle/meshctl/explain"
	"github.com/tulle-mesh/tulle/meshctl/mesh"
)

func newRoute(s *streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "route",
		Aliases: []string{"routes"},
		Short:   "See the routes that waypoints follow, and which one a request would take",
		Example: `  meshctl route list
  meshctl route check --service shop/web --port 80 --path /shop/x`,
		Args: noSuchCommand,
		RunE: help,
	}
	t := newTarget(s, cmd)
	cmd.AddCommand(newRouteList(s, t), newRouteCheck(s, t))
	return cmd
}

// methods are offered where one is asked for.
var methods = []string{"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"}

// requestFlags describe a request.
func requestFlags(cmd *cobra.Command, r *explain.HTTP) {
	flags := cmd.Flags()
	flags.StringVar(&r.Method, "method", "", "method of the request (default GET)")
	flags.StringVar(&r.Path, "path", "", "path and query of the request (default /)")
	flags.StringVar(&r.Authority, "authority", "", "host of the request (default: the service's hostname)")
	flags.StringArrayVarP(&r.Headers, "header", "H", nil, "NAME:VALUE of a header field; may be repeated")
	_ = cmd.RegisterFlagCompletionFunc("method", cobra.FixedCompletions(methods, cobra.ShellCompDirectiveNoFileComp))
}

// waypointsOf lists the proxies of the waypoints of a mesh, or of one Gateway, those
// that are ready first.
func waypointsOf(ctx context.Context, t *targetFlags, gateway string) ([]*mesh.Component, error) {
	m, err := t.open(ctx)
	if err != nil {
		return nil, err
	}
	all, err := m.Components(ctx, mesh.Waypoint)
	if err != nil {
		return nil, err
	}
	some := len(all) > 0
	all = slices.DeleteFunc(all, func(c *mesh.Component) bool {
		return gateway != "" && c.Gateway != gateway && !strings.HasSuffix(c.Gateway, "/"+gateway) && c.Name != gateway
	})
	switch {
	case len(all) == 0 && some:
		return nil, fmt.Errorf("%s runs no waypoint %s", m, gateway)
	case len(all) == 0 && m.Local():
		return nil, fmt.Errorf("%s runs no waypoints: a Gateway of the class istio-waypoint in a file of `meshctl local up -f` starts one", m)
	case len(all) == 0:
		return nil, fmt.Errorf("%s runs no waypoints: `meshctl waypoint apply` makes one, and `meshctl waypoint list` shows them", m)
	}
	slices.SortStableFunc(all, func(a, b *mesh.Component) int {
		if a.Ready != b.Ready {
			if a.Ready {
				return -1
			}
			return 1
		}
		return cmp.Compare(a.Name, b.Name)
	})
	return all, nil
}

// routeDump is what a waypoint's config_dump says of a service.
type routeDump struct {
	Services []struct {
		Service  string          `json:"service"`
		Policies []string        `json:"policies"`
		Config   json.RawMessage `json:"config"`
		Ports    []routePort     `json:"ports"`
	} `json:"services"`
}

type routePort struct {
	Port     uint16 `json:"port"`
	Protocol string `json:"protocol"`
	Tables   []struct {
		Clients string      `json:"clients,omitempty"`
		Rules   []routeRule `json:"rules"`
	} `json:"tables,omitempty"`
}

type routeRule struct {
	Rule     string   `json:"rule"`
	Matches  []string `json:"matches,omitempty"`
	Backends []string `json:"backends,omitempty"`
	Filters  []string `json:"filters,omitempty"`
	Fault    string   `json:"fault,omitempty"`
}

// listedRoute is one rule, as `meshctl route list -o json` prints it.
type listedRoute struct {
	Gateway  string `json:"gateway"`
	Service  string `json:"service"`
	Port     uint16 `json:"port"`
	Protocol string `json:"protocol"`
	// Clients is the namespace whose clients alone the rule is for.
	Clients string `json:"clients,omitempty"`
	routeRule
}

func newRouteList(s *streams, t *targetFlags) *cobra.Command {
	var service, gateway string
	output := outputFlag("table")
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the rules of all services, as the waypoints have them",
		Long: `Lists the rules that waypoints follow, by service and port, in the order of their
routes. A service without rules gets its requests itself.`,
		Example: `  meshctl route list
  meshctl route list --service shop/web -o wide`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := notEmpty(cmd, "service", "waypoint"); err != nil {
				return err
			}
			if service != "" {
				if err := explain.CheckService(service); err != nil {
					return err
				}
			}
			proxies, err := waypointsOf(cmd.Context(), t, gateway)
			if err != nil {
				return err
			}
			dumps, errs := mesh.Each(cmd.Context(), proxies, func(ctx context.Context, c *mesh.Component) (routeDump, error) {
				var d routeDump
				body, err := c.Get(ctx, "/config_dump")
				if err == nil {
					err = json.Unmarshal(body, &d)
				}
				return d, err
			})
			list, seen := []listedRoute{}, map[string]bool{}
			var known []string
			for i, d := range dumps {
				if errs[i] != nil {
					continue
				}
				for _, svc := range d.Services {
					if service != "" && !namesService(service, svc.Service) {
						known = append(known, svc.Service)
						continue
					}
					for _, p := range svc.Ports {
						for _, r := range rulesOf(proxies[i].Gateway, svc.Service, p) {
							key, _ := json.Marshal(r)
							if !seen[string(key)] { // replicas have the same
								seen[string(key)] = true
								list = append(list, r)
							}
						}
					}
				}
			}
			if failed := errors.Join(errs...); service != "" && len(list) == 0 && failed == nil {
				return noWaypointBefore(service, known)
			}
			slices.SortStableFunc(list, func(a, b listedRoute) int {
				return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.Port, b.Port), cmp.Compare(a.Clients, b.Clients))
			})
			err = output.print(s.out, list, func() { routeTable(s, list, output.wide()) })
			return errors.Join(append(alike(errs), err)...)
		},
	}
	cmd.Flags().StringVar(&service, "service", "", "only this service: NAME, NAMESPACE/NAME or its hostname")
	cmd.Flags().StringVar(&gateway, "waypoint", "", "only this waypoint: NAME or NAMESPACE/NAME")
	_ = cmd.RegisterFlagCompletionFunc("service", t.completeQualifiedServices)
	_ = cmd.RegisterFlagCompletionFunc("waypoint", t.completeWaypoints)
	cmd.Flags().VarP(&output, "output", "o", outputUsage)
	return cmd
}

func rulesOf(gateway, service string, p routePort) []listedRoute {
	base := listedRoute{Gateway: gateway, Service: service, Port: p.Port, Protocol: p.Protocol}
	var out []listedRoute
	for _, t := range p.Tables {
		for _, r := range t.Rules {
			one := base
			one.Clients, one.routeRule = t.Clients, r
			out = append(out, one)
		}
	}
	if len(out) == 0 {
		base.Backends = []string{"the service itself"}
		out = append(out, base)
	}
	return out
}

func routeTable(s *streams, list []listedRoute, wide bool) {
	if len(list) == 0 {
		fmt.Fprintln(s.out, "no service uses a waypoint: the label istio.io/use-waypoint on a service or its namespace names one")
		return
	}
	head := []string{"SERVICE", "PORT", "RULE", "MATCHES", "TO"}
	if wide {
		head = append(head, "FILTERS", "PROTOCOL", "CLIENTS", "WAYPOINT")
	}
	rows := [][]string{head}
	for _, r := range list {
		_, host, _ := strings.Cut(r.Service, "/")
		if parts := strings.SplitN(host, ".", 3); len(parts) > 2 && strings.HasPrefix(parts[2], "svc.") && !wide {
			host = parts[0] + "." + parts[1]
		}
		to := strings.Join(r.Backends, ", ")
		if r.Fault != "" {
			to = "500: " + r.Fault
		}
		row := []string{host, strconv.Itoa(int(r.Port)), r.Rule, strings.Join(r.Matches, " | "), to}
		if wide {
			row = append(row, strings.Join(r.Filters, ", "), r.Protocol, r.Clients, r.Gateway)
		}
		rows = append(rows, row)
	}
	table(s.out, rows)
}

// namesService tells whether a name, in any of its forms, means namespace/hostname.
func namesService(name, key string) bool {
	namespace, host, _ := strings.Cut(key, "/")
	short, _, _ := strings.Cut(host, ".")
	return name == key || name == host || name == short || name == namespace+"/"+short || name == short+"."+namespace
}

func newRouteCheck(s *streams, t *targetFlags) *cobra.Command {
	var (
		service, from, gateway string
		port                   uint16
		request                explain.HTTP
		files                  []string
	)
	output := outputFlag("table")
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Say which rule a request would take, and why",
		Long: `Asks the waypoint of a service what it would do with a request: whether its
policies allow it, which rule takes it, each rule that was looked at before with the
condition that failed, and how many endpoints serve. The waypoint's own code decides,
on its live state; no request is sent. With -f it is what a waypoint would do that had
got the objects of the files: before they are applied, without a mesh. Files are read as
"meshctl local up -f" reads them: a folder without its sub-folders, and an object of a
later -f in the place of the one of the same name in an earlier one.

Exit status: 0 it would be sent to a backend, or answered by the rule itself (a
redirect, a direct response), 1 refused or answered with an error, 2 nobody can tell.`,
		Example: `  meshctl route check --service shop/web --port 80 --path /shop/x
  meshctl route check --service web.shop --port 80 --method POST --path '/order?x=1' \
      -H x-team:blue --from shop/client
  meshctl route check -f examples/shop -f examples/shop/steps/4-waypoint.yaml \
      --service shop/web --port 80 --path /shop/x`,
		Annotations: map[string]string{verdict: "1"},
		Args:        noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := notEmpty(cmd, "service", "from", "waypoint", "method", "path", "authority"); err != nil {
				return err
			}
			switch {
			case service == "":
				return misused(cmd, "--service is missing: the service that the request is for")
			case port == 0:
				return misused(cmd, "--port is missing: the port of %s that the request is for", service)
			}
			if err := cmp.Or(explain.CheckService(service), explain.CheckClient(from), request.Check()); err != nil {
				return misused(cmd, "%w", err)
			}
			if len(files) > 0 && gateway != "" {
				return misused(cmd, "--waypoint: with --file no waypoint is asked")
			}
			var a *explain.WaypointAnswer
			var err error
			if len(files) > 0 {
				a, err = explain.AskFiles(files, service, port, from, request)
			} else {
				var proxies []*mesh.Component
				if proxies, err = waypointsOf(cmd.Context(), t, gateway); err == nil {
					a, err = checkRoute(cmd.Context(), proxies, service, port, from, request)
				}
			}
			if err != nil {
				return exitWith(2, "%w", err)
			}
			p := explanation{w: s.out, paint: paint(s.outFile), wide: output.wide()}
			if err := output.print(s.out, a, func() { p.check(a) }); err != nil {
				return exitWith(2, "%w", err)
			}
			switch {
			case a.Serves() != "":
				return exitError(1)
			case a.Unknown() != "":
				return exitError(2)
			}
			return nil
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&service, "service", "", "service of the request: NAME, NAMESPACE/NAME or its hostname")
	flags.Uint16Var(&port, "port", 0, "its port")
	flags.StringVar(&from, "from", "", "client: NAMESPACE/SERVICEACCOUNT or a SPIFFE ID; without one, nobody")
	flags.StringVar(&gateway, "waypoint", "", "ask this waypoint: NAME or NAMESPACE/NAME")
	flags.StringArrayVarP(&files, "file", "f", nil, "judge by the objects of this file, or folder without its sub-folders; repeatable, later ones go before")
	requestFlags(cmd, &request)
	_ = cmd.RegisterFlagCompletionFunc("service", t.completeQualifiedServices)
	_ = cmd.RegisterFlagCompletionFunc("waypoint", t.completeWaypoints)
	_ = cmd.RegisterFlagCompletionFunc("from", t.completeAccounts)
	flags.VarP(&output, "output", "o", outputUsage)
	return cmd
}

// checkRoute finds the waypoint of the service and asks it.
func checkRoute(ctx context.Context, proxies []*mesh.Component, service string, port uint16, from string, r explain.HTTP) (*explain.WaypointAnswer, error) {
	var errs []error
	var known []string
	for _, c := range proxies {
		var d routeDump
		body, err := c.Get(ctx, "/config_dump")
		if err == nil {
			err = json.Unmarshal(body, &d)
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for _, svc := range d.Services {
			if !namesService(service, svc.Service) {
				known = append(known, svc.Service)
				continue
			}
			a, err := explain.AskWaypoint(ctx, c, svc.Service, port, from, netip.Addr{}, explain.HTTP{})
			if err == nil {
				err = a.Ask(ctx, c, from, netip.Addr{}, r)
			}
			return a, err
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(alike(errs)...)
	}
	return nil, noWaypointBefore(service, known)
}

// noWaypointBefore says that no waypoint serves a service, and which are served.
func noWaypointBefore(service string, known []string) error {
	slices.Sort(known)
	text := "no service uses one"
	if known = slices.Compact(known); len(known) > 0 {
		text = "those that do are " + strings.Join(known, ", ")
	}
	return fmt.Errorf("no waypoint stands before a service %s: %s", service, text)
}

// check writes the answer to `route check`.
func (p *explanation) check(a *explain.WaypointAnswer) {
	what := "connection"
	if a.Method != "" {
		what = a.Method + " " + a.Path
	}
	_, host, _ := strings.Cut(a.Service, "/")
	fmt.Fprintf(p.w, "%s to %s:%d\n", what, host, a.Port)
	o, text := outcomes[explain.Allowed], a.Does()
	if why := a.Serves(); why != "" {
		o, text = outcomes[explain.Refused], why
	} else if why := a.Unknown(); why != "" {
		o, text = outcomes[explain.Unknown], why
	}
	if a.Allowed && a.Route.Answer != "" {
		o.word = "answered" // by the waypoint itself
	}
	p.block(p.paint(o.colour, o.mark+" "+o.word)+": ", len([]rune(o.mark+o.word))+3, text)
	fmt.Fprintln(p.w)
	p.waypoint(a)
}

// waypoint writes what a waypoint decides.
func (p *explanation) waypoint(a *explain.WaypointAnswer) {
	who := a.Gateway
	if a.Waypoint != "" {
		who += " (" + a.Waypoint + ")"
	}
	what := ""
	if a.Method != "" {
		what = ", judged as " + a.Method + " " + a.Path
	}
	p.indented("waypoint", who+", "+a.Protocol+what)
	if a.From != "" {
		p.indented("client", a.From)
	}
	switch {
	case len(a.Policies) == 0:
		p.indented("policies", "none apply: every client is let in")
	case a.Allowed && a.Policy != "":
		p.indented("policies", "allowed by "+a.Policy)
	case a.Allowed:
		p.indented("policies", "none of "+strings.Join(a.Policies, ", ")+" stands against it")
	case a.Undecided:
		p.indented("policies", "cannot tell: "+a.Reason)
	default:
		p.indented("policies", "refused: "+a.Reason)
	}
	for i, c := range a.Route.Considered {
		name := ""
		if i == 0 {
			name = "rules"
		}
		if !p.wide && len(a.Route.Considered)-i > maxConsidered && c.Failed != "" {
			if i == 0 {
				p.indented(name, fmt.Sprintf("(%d rules before these do not fit; -o wide shows them)", len(a.Route.Considered)-maxConsidered))
			}
			continue
		}
		text := c.Rule + ": "
		if c.Failed == "" {
			conditions := "fits everything"
			if len(c.Conditions) > 0 {
				conditions = strings.Join(c.Conditions, ", ")
			}
			text += conditions + " ← decides"
		} else {
			text += "not " + c.Failed + " (got " + c.Got + ")"
		}
		p.indented(name, text)
	}
	switch a.Route.Decision {
	case "default":
		p.indented("rules", "no route is attached: requests go to the service itself")
	case "not found":
		p.indented("", "no rule fits: 404")
	}
	if a.Route.Fault != "" {
		p.indented("fault", a.Route.Fault)
	}
	if a.Route.Answer != "" {
		p.indented("answer", a.Route.Answer)
	}
	for i, f := range a.Route.Faults {
		name := ""
		if i == 0 {
			name = "faults"
		}
		p.indented(name, f)
	}
	if len(a.Route.Filters) > 0 {
		p.indented("filters", strings.Join(a.Route.Filters, ", "))
	}
	if len(a.RateLimits) > 0 {
		p.indented("limits", strings.Join(a.RateLimits, ", ")+" may refuse it: `meshctl ratelimit status` shows what is left")
	}
	for i, b := range a.Backends {
		name := ""
		if i == 0 {
			name = "backends"
		}
		verb := "serve"
		if b.Of == 1 {
			verb = "serves"
		}
		text := fmt.Sprintf("%s, weight %d, %d of %s %s", b.Backend, b.Weight, b.Endpoints, count(b.Of, "endpoint"), verb)
		if b.Unseen {
			text = fmt.Sprintf("%s, weight %d", b.Backend, b.Weight)
		}
		if b.Fault != "" {
			text = b.Backend + ": " + b.Fault
		}
		p.indented(name, text)
	}
	for _, n := range a.Notes {
		p.indented("note", n)
	}
}

// maxConsidered bounds the rules that are shown before the one that decides.
const maxConsidered = 8
