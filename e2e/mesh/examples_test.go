package mesh_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestExamplesDoWhatTheirReadmesSay runs the commands of the READMEs, one after the
// other, and looks for what stands behind the "#" of each.
func TestExamplesDoWhatTheirReadmesSay(t *testing.T) {
	m := start(t)
	for _, example := range []string{"httpbin", "bookinfo"} {
		t.Run(example, func(t *testing.T) {
			args := m.args
			t.Cleanup(func() {
				m.args = args
				if out, err := m.converge(); err != nil {
					t.Errorf("meshctl local up: %v\n%s", err, out)
				}
			})
			readme, err := os.ReadFile(filepath.Join("../../examples", example, "README.md"))
			if err != nil {
				t.Fatal(err)
			}
			steps := 0
			for _, block := range regexp.MustCompile("(?ms)^```sh\n(.*?)^```").FindAllSubmatch(readme, -1) {
				for line := range strings.Lines(string(block[1])) {
					m.follow(t, strings.TrimSpace(line), args)
					steps++
				}
			}
			if steps < 10 {
				t.Errorf("the README has %d commands", steps)
			}
		})
	}
}

// follow runs one command of a README.
func (m *mesh) follow(t *testing.T, line string, args []string) {
	t.Helper()
	command, want, _ := strings.Cut(line, " # ")
	command, want = strings.TrimSpace(command), strings.TrimSpace(want)
	rest, ok := strings.CutPrefix(command, "bin/meshctl local ")
	verb, rest, _ := strings.Cut(rest, " ")
	switch {
	case ok && verb == "down":
	case ok && verb == "up":
		m.args = append([]string{}, args...)
		for _, file := range strings.Fields(strings.ReplaceAll(rest, "-f ", "")) {
			m.args = append(m.args, "-f", filepath.Join("../..", file))
		}
		if out, err := m.converge(); err != nil {
			t.Fatalf("%s: %v\n%s", command, err, out)
		}
	case ok && verb == "exec":
		// Routes and policies reach the waypoint a moment after the objects are read.
		eventually(t, command, func() error {
			pod, shell, _ := strings.Cut(rest, " -- ")
			out, err := m.exec(t.Context(), pod, "sh", "-c", shell)
			if err == nil && !strings.Contains(out, want) {
				err = fmt.Errorf("the answer has no %q:\n%s", want, out)
			}
			return err
		})
	default:
		t.Fatalf("what is %q?", line)
	}
}
