package app

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"strings"

	"github.com/tulle-mesh/tulle/ztunnel/redirect"
)

// Config are the settings of the node agent.
type Config struct {
	// ZDSSocket is where the proxy connects.
	ZDSSocket string
	// APISocket is where pods are enrolled and removed.
	APISocket string
	// StateDir remembers enrolled pods until the next boot.
	StateDir string
	// MetricsAddr serves /metrics and /healthz/ready; empty: nowhere.
	MetricsAddr string
	// Rules is the variant of rules for every pod.
	Rules redirect.Config
	// LogLevel and LogFormat are those of internal/logging.
	LogLevel, LogFormat string
	// LogOutput is standard error when nil.
	LogOutput io.Writer
}

// Parse reads flags; each may come from the environment instead, as
// TULLE_AGENT_ and the flag's name in capitals with underscores. Help and errors
// of the command line go to output. flag.ErrHelp means that help was asked for.
func Parse(args []string, getenv func(string) string, output io.Writer) (Config, error) {
	var cfg Config
	var probes string
	fs := flag.NewFlagSet("tulle-agent", flag.ContinueOnError)
	fs.SetOutput(output)
	fs.StringVar(&cfg.ZDSSocket, "zds-socket", "/var/run/ztunnel/ztunnel.sock", "`path` of the unix socket where ztunnel connects")
	fs.StringVar(&cfg.APISocket, "api-socket", "/var/run/tulle/agent.sock", "`path` of the unix socket where pods are enrolled and removed")
	fs.StringVar(&cfg.StateDir, "state-dir", "/var/run/tulle/agent", "`directory` that remembers enrolled pods; need not outlive a reboot")
	fs.StringVar(&cfg.MetricsAddr, "metrics", "", "`host:port` for /metrics and /healthz/ready (default: nowhere)")
	fs.StringVar(&probes, "probe-sources", "", "comma-separated source `addresses` of kubelet probes, which reach pods past the mesh")
	fs.StringVar(&cfg.LogLevel, "log-level", "info", "`level`, or logger:level, several separated by commas")
	fs.StringVar(&cfg.LogFormat, "log-format", "text", "text or json")
	if err := fs.Parse(args); err != nil {
		return Config{}, err
	}
	set := map[string]bool{}
	fs.Visit(func(f *flag.Flag) { set[f.Name] = true })
	var errs []error
	fs.VisitAll(func(f *flag.Flag) {
		name := "TULLE_AGENT_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		if v := getenv(name); v != "" && !set[f.Name] {
			if err := f.Value.Set(v); err != nil {
				errs = append(errs, fmt.Errorf("environment %s: %w", name, err))
			}
		}
	})
	if fs.NArg() > 0 {
		errs = append(errs, fmt.Errorf("unexpected argument %q", fs.Arg(0)))
	}
	if probes != "" {
		for s := range strings.SplitSeq(probes, ",") {
			a, err := netip.ParseAddr(strings.TrimSpace(s))
			if err != nil {
				errs = append(errs, fmt.Errorf("--probe-sources: %w", err))
			}
			cfg.Rules.ProbeSources = append(cfg.Rules.ProbeSources, a)
		}
	}
	for name, value := range map[string]string{"--zds-socket": cfg.ZDSSocket, "--api-socket": cfg.APISocket, "--state-dir": cfg.StateDir} {
		if value == "" {
			errs = append(errs, fmt.Errorf("%s is empty", name))
		}
	}
	return cfg, errors.Join(errs...)
}
