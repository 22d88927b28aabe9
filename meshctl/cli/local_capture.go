package cli

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tulle-mesh/tulle/meshctl/local/capture"
	"github.com/tulle-mesh/tulle/meshctl/local/control"
)

// newCapture runs its other half, newCaptureHere, where the link is.
func newCapture(s *streams, flags *localFlags) *cobra.Command {
	var (
		request    control.Exec
		link, find string
		period     time.Duration
		output     = outputFlag("table")
	)
	cmd := &cobra.Command{
		Use:   "capture (POD | --node NODE)",
		Short: "Look at the packets between the nodes, or of a pod",
		Long: `Counts what goes over a node's link to the other nodes, or over a pod's link, by
transport and port, until --for is over or standard input ends or an interrupt
comes. --find searches the payload for a text: found means that it went over the
wire in plaintext.`,
		Example: `  meshctl local capture --node node-1 --for 10s --find 'order 42'`,
		Args:    oneArgument,
		RunE: func(cmd *cobra.Command, args []string) error {
			if (len(args) == 1) == (request.Node != "") {
				return fmt.Errorf("say where to look: meshctl local capture POD, or --node NODE")
			}
			if len(args) == 1 {
				request.Pod = args[0]
			}
			request.Self = true
			request.Argv = []string{"local", "capture-here", "--", link, find, period.String(), output.String()}
			return runExec(cmd, s, flags, request)
		},
	}
	cmd.Flags().StringVarP(&request.Namespace, "namespace", "n", "", "namespace of POD")
	cmd.Flags().StringVar(&request.Node, "node", "", "look at this node's link to the others")
	cmd.Flags().StringVar(&link, "link", "eth0", "link to look at")
	cmd.Flags().StringVar(&find, "find", "", "text to search for")
	cmd.Flags().DurationVar(&period, "for", 0, "how long to look; 0 means until standard input ends or an interrupt")
	cmd.Flags().VarP(&output, "output", "o", outputUsage)
	return cmd
}

func newCaptureHere(s *streams) *cobra.Command {
	return &cobra.Command{
		Use:    "capture-here LINK FIND PERIOD OUTPUT",
		Hidden: true,
		Args:   cobra.ExactArgs(4),
		RunE: func(cmd *cobra.Command, args []string) error {
			period, err := time.ParseDuration(args[2])
			if err != nil {
				return err
			}
			return captureHere(cmd.Context(), s, args[0], args[1], period, outputFlag(args[3]))
		},
	}
}

func captureHere(ctx context.Context, s *streams, link, find string, period time.Duration, output outputFlag) error {
	var cancel context.CancelFunc
	if period > 0 {
		ctx, cancel = context.WithTimeout(ctx, period)
	} else {
		ctx, cancel = context.WithCancel(ctx)
		go func() {
			io.Copy(io.Discard, s.in)
			cancel()
		}()
	}
	defer cancel()
	report, err := capture.Capture(ctx, link, []byte(find), func() { fmt.Fprintf(s.err, "looking at %s\n", link) })
	if err != nil {
		return err
	}
	return output.print(s.out, report, func() { printCapture(s.out, report, find) })
}

func printCapture(w io.Writer, report capture.Report, find string) {
	rows := [][]string{{"PROTOCOL", "PORT", "PACKETS", "PAYLOAD BYTES"}}
	for _, f := range report.Flows {
		rows = append(rows, []string{f.Protocol, number(int(f.Port)), fmt.Sprint(f.Packets), fmt.Sprint(f.PayloadBytes)})
	}
	table(w, rows)
	if report.Dropped > 0 {
		fmt.Fprintf(w, "%d packets came too fast to be looked at\n", report.Dropped)
	}
	switch {
	case find == "":
	case report.Found > 0:
		fmt.Fprintf(w, "%q was seen in plaintext in %d packets; the first:\n  %s\n", find, report.Found, printable(report.Example))
	default:
		fmt.Fprintf(w, "%q was not seen\n", find)
	}
}

// printable shows bytes that may be anything on one line.
func printable(b []byte) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '.'
		}
		return r
	}, string(b))
}
