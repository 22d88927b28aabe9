package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tulle-mesh/tulle/meshctl/local/control"
)

// followPeriod is how often a followed log is looked at.
const followPeriod = 200 * time.Millisecond

func newLogs(s *streams, flags *localFlags) *cobra.Command {
	var (
		node, namespace, container string
		follow                     bool
		tail                       int
	)
	cmd := &cobra.Command{
		Use:   "logs [COMPONENT | POD]",
		Short: "Print the log of a component or a pod",
		Long: `Prints what a component of the mesh (istiod-lite, ztunnel, agent, supervisor) or
a pod wrote. Without an argument it lists what there is. Logs are read from the
state folder, so that they can be read after a crash too.`,
		Example: `  meshctl local logs ztunnel --node node-1 -f
  meshctl local logs shop/web`,
		Args: oneArgument,
		RunE: func(cmd *cobra.Command, args []string) error {
			dir, err := flags.dir()
			if err != nil {
				return err
			}
			state := control.StateDir(dir)
			if _, err := os.Stat(state.Logs()); err != nil {
				return fmt.Errorf("no logs in %s: no mesh has run with this --state-dir", dir)
			}
			if tail < -1 {
				return fmt.Errorf("--tail %d: must be a number of lines, or -1 for all", tail)
			}
			all := logFiles(state)
			if len(args) == 0 {
				for _, l := range all {
					fmt.Fprintln(s.out, l.hint)
				}
				return nil
			}
			chosen, err := choose(all, args[0], node, namespace, container)
			if err != nil {
				return err
			}
			return printLogs(cmd.Context(), s.out, chosen, follow, tail)
		},
	}
	cmd.Flags().StringVar(&node, "node", "", "node of the component; all nodes when left out")
	cmd.Flags().StringVarP(&namespace, "namespace", "n", "", "namespace of the pod")
	cmd.Flags().StringVarP(&container, "container", "c", "", "container of the pod; all when left out")
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on printing what is written")
	cmd.Flags().IntVar(&tail, "tail", -1, "print only so many last lines; -1 prints all")
	return cmd
}

// logFile is one log. node is empty for pods and for what runs once.
type logFile struct {
	path, hint                       string
	component, node                  string
	namespace, pod, container, label string
}

func logFiles(state control.StateDir) []logFile {
	var list []logFile
	filepath.Walk(state.Logs(), func(path string, info os.FileInfo, err error) error {
		if err != nil || info.IsDir() || !strings.HasSuffix(path, ".log") {
			return nil
		}
		rel, _ := filepath.Rel(state.Logs(), strings.TrimSuffix(path, ".log"))
		switch parts := strings.Split(rel, string(filepath.Separator)); {
		case len(parts) == 1:
			list = append(list, logFile{path: path, component: rel, hint: rel, label: rel})
		case len(parts) == 2:
			list = append(list, logFile{path: path, component: parts[1], node: parts[0], hint: parts[1] + " --node " + parts[0], label: parts[0] + "/" + parts[1]})
		case len(parts) == 4 && parts[0] == "pods":
			list = append(list, logFile{path: path, namespace: parts[1], pod: parts[2], container: parts[3],
				hint: parts[1] + "/" + parts[2] + " -c " + parts[3], label: strings.Join(parts[1:], "/")})
		}
		return nil
	})
	sort.Slice(list, func(i, j int) bool { return list[i].hint < list[j].hint })
	return list
}

// choose finds the logs that are meant by a name.
func choose(all []logFile, name, node, namespace, container string) ([]logFile, error) {
	var chosen []logFile
	for _, l := range all {
		if l.component == name && (node == "" || l.node == node) {
			chosen = append(chosen, l)
		}
	}
	if len(chosen) > 0 {
		return chosen, nil
	}
	pod := name
	if ns, rest, ok := strings.Cut(name, "/"); ok {
		namespace, pod = ns, rest
	}
	pods := map[string]bool{}
	for _, l := range all {
		if l.pod != "" && l.pod == pod && (namespace == "" || l.namespace == namespace) && (container == "" || l.container == container) {
			chosen = append(chosen, l)
			pods[l.namespace] = true
		}
	}
	switch {
	case len(chosen) == 0:
		for _, only := range []struct{ what, value string }{{"node", node}, {"namespace", namespace}, {"container", container}} {
			if only.value != "" {
				name += ", " + only.what + " " + only.value
			}
		}
		return nil, fmt.Errorf("no log of %s; `meshctl local logs` lists what there is", name)
	case len(pods) > 1:
		return nil, fmt.Errorf("%d pods are called %q; say which with -n NAMESPACE", len(pods), name)
	}
	return chosen, nil
}

func printLogs(ctx context.Context, w io.Writer, files []logFile, follow bool, tail int) error {
	offsets := make([]int64, len(files))
	for first := true; ; first = false {
		for i, l := range files {
			prefix := ""
			if len(files) > 1 {
				prefix = l.label + ": "
			}
			limit := -1
			if first {
				limit = tail
			}
			n, err := printFrom(w, l.path, offsets[i], prefix, limit)
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
			offsets[i] = n
		}
		if !follow {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(followPeriod):
		}
	}
}

// printFrom prints whole lines of a file from offset on and returns where to go
// on. A file that became shorter was cut back and is read from its start.
func printFrom(w io.Writer, path string, offset int64, prefix string, tail int) (int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return offset, err
	}
	if info.Size() < offset {
		offset = 0
	}
	data, err := io.ReadAll(io.NewSectionReader(f, offset, info.Size()-offset))
	if err != nil {
		return offset, err
	}
	lines := strings.SplitAfter(string(data), "\n")
	if last := len(lines) - 1; lines[last] == "" {
		lines = lines[:last]
	}
	if tail >= 0 && len(lines) > tail {
		lines = lines[len(lines)-tail:]
	}
	for _, line := range lines {
		fmt.Fprint(w, prefix, line)
		if !strings.HasSuffix(line, "\n") {
			fmt.Fprintln(w)
		}
	}
	return info.Size(), nil
}
