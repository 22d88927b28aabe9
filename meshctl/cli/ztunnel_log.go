package cli

import (
	"context"
	"errors"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tulle-mesh/tulle/meshctl/mesh"
)

// logLevel is one ztunnel's level, as `meshctl ztunnel log -o json` prints it.
type logLevel struct {
	Node    string `json:"node"`
	Ztunnel string `json:"ztunnel"`
	Level   string `json:"level"`
}

// alike keeps of the same refusal by several ztunnels one, without a name.
func alike(errs []error) []error {
	var out []error
	said := map[string]bool{}
	for _, err := range errs {
		var refusal *mesh.RefusalError
		switch {
		case !errors.As(err, &refusal):
			out = append(out, err)
		case !said[refusal.Error()]:
			said[refusal.Error()] = true
			out = append(out, refusal)
		}
	}
	return out
}

func newZtunnelLog(s *streams, t *targetFlags) *cobra.Command {
	f := &proxyFlags{target: t}
	output := outputFlag("table")
	var level string
	var reset bool
	cmd := &cobra.Command{
		Use:   "log [POD]",
		Short: "Show or change the log levels of the ztunnels",
		Long: `Shows the log level of every ztunnel, or changes it while they run: for all
scopes (--level debug), or for one (--level access:debug). A restart of the ztunnel
brings back what it was installed with, --reset does so at once.`,
		Example: `  meshctl ztunnel log
  meshctl ztunnel log --node worker-2 --level access:debug
  meshctl ztunnel log --reset`,
		Args: oneArgument,
		RunE: func(cmd *cobra.Command, args []string) error {
			if level != "" && reset {
				return errors.New("--level and --reset: give one of both")
			}
			sel, err := f.choose(cmd.Context(), args)
			if err != nil {
				return err
			}
			answers, errs := mesh.Each(cmd.Context(), sel.proxies, func(ctx context.Context, c *mesh.Component) ([]byte, error) {
				switch {
				case reset:
					return c.Post(ctx, "/logging?reset")
				case level != "":
					return c.Post(ctx, "/logging?level="+url.QueryEscape(level))
				}
				return c.Get(ctx, "/logging")
			})
			list := []logLevel{}
			for i, body := range answers {
				if errs[i] == nil {
					text := strings.TrimSpace(string(body))
					list = append(list, logLevel{sel.proxies[i].Node, sel.proxies[i].Name, strings.TrimPrefix(text, "current log level is ")})
				}
			}
			if len(list) > 0 {
				err = output.print(s.out, list, func() {
					rows := [][]string{{"NODE", "ZTUNNEL", "LEVEL"}}
					for _, l := range list {
						rows = append(rows, []string{l.Node, l.Ztunnel, l.Level})
					}
					table(s.out, rows)
				})
			}
			return errors.Join(append(alike(errs), err)...)
		},
	}
	f.add(cmd, "namespace of POD")
	cmd.Flags().StringVar(&level, "level", "", "error, warn, info or debug; SCOPE:LEVEL for one scope")
	cmd.Flags().BoolVar(&reset, "reset", false, "go back to the level that the ztunnel was started with")
	cmd.Flags().VarP(&output, "output", "o", outputUsage)
	return cmd
}
