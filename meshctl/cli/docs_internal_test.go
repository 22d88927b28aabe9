package cli

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// docs/cli.md says of each command whether it looks at a local mesh, too, as its flags do.
func TestTheDocsSayWhichMeshACommandMeans(t *testing.T) {
	text, err := os.ReadFile("../../docs/cli.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "## Which mesh\n")
	section, _, _ = strings.Cut(section, "|")
	named := func(sentence string) []string {
		t.Helper()
		m := regexp.MustCompile("(?s)((?:`[a-z ]+`(?:,| and)?\\s+)+)" + sentence).FindStringSubmatch(section)
		if m == nil {
			t.Fatalf("no sentence with %q in\n%s", sentence, section)
		}
		var out []string
		for _, x := range regexp.MustCompile("`([a-z ]+)`").FindAllStringSubmatch(m[1], -1) {
			out = append(out, x[1])
		}
		return out
	}
	both, cluster := named(`work\s+on\s+a\s+mesh\s+in\s+a\s+cluster\s+and\s+on\s+a\s+local\s+mesh`), named(`always\s+mean\s+a\s+cluster`)
	var walk func(cmd *cobra.Command)
	walk = func(cmd *cobra.Command) {
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
		path := strings.TrimPrefix(strings.TrimPrefix(cmd.CommandPath(), "meshctl"), " ")
		if cmd.HasSubCommands() || path == "" || strings.HasPrefix(path, "local ") {
			return
		}
		in := func(list []string) bool {
			return slices.ContainsFunc(list, func(name string) bool { return path == name || strings.HasPrefix(path, name+" ") })
		}
		has := func(flag string) bool { return cmd.Flag(flag) != nil }
		if in(both) != has("local") || in(cluster) != (has("kubeconfig") && !has("local")) {
			t.Errorf("meshctl %s: --local %t, --kubeconfig %t; the docs have it among those for both %t, for clusters alone %t",
				path, has("local"), has("kubeconfig"), in(both), in(cluster))
		}
	}
	walk(newRoot(&streams{}))
}

// An example of a help text is a command line that the command takes.
func TestExamplesAreCommandLines(t *testing.T) {
	var walk func(cmd *cobra.Command)
	walk = func(cmd *cobra.Command) {
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
		for line := range strings.Lines(strings.ReplaceAll(cmd.Example, "\\\n", "")) {
			line, _, _ = strings.Cut(strings.TrimSpace(line), " | ")
			line, _, _ = strings.Cut(line, " > ")
			line, _, _ = strings.Cut(line, "#")
			args := strings.Fields(strings.ReplaceAll(line, "'", ""))
			if len(args) == 0 || args[0] != "meshctl" {
				continue
			}
			found, rest, err := newRoot(&streams{}).Find(args[1:])
			if err != nil {
				t.Errorf("%s: %q: %v", cmd.CommandPath(), line, err)
				continue
			}
			if err := found.ParseFlags(rest); err != nil {
				t.Errorf("%s: %q: %v", cmd.CommandPath(), line, err)
			} else if err := found.ValidateArgs(found.Flags().Args()); err != nil {
				t.Errorf("%s: %q: %v", cmd.CommandPath(), line, err)
			}
		}
	}
	walk(newRoot(&streams{}))
}
