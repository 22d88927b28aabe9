package cli

import (
	"io"
	"os"
	"path/filepath"
	"testing"
)

// A mistake in the command line is told before anything is asked, with what to do;
// where status 1 is an answer, it ends with 2.
func TestMistakesInTheCommandLineSayWhatToDo(t *testing.T) {
	for _, tt := range []struct {
		args   []string
		status int
		says   string
	}{
		{[]string{"bogus"}, 1, "unknown command \"bogus\" for \"meshctl\"; `meshctl --help` lists its commands"},
		{[]string{"chek"}, 1, `unknown command "chek" for "meshctl"; did you mean "check"?`},
		{[]string{"ztunnel", "wl"}, 1, "unknown command \"wl\" for \"meshctl ztunnel\"; `meshctl ztunnel --help` lists its commands"},
		{[]string{"check", "shop"}, 2, "meshctl check takes no argument, and \"shop\" is one; `meshctl check --help` lists its flags"},
		{[]string{"install", "x"}, 1, "meshctl install takes no argument, and \"x\" is one; `meshctl install --help` lists its flags"},
		{[]string{"ztunnel", "log", "a", "b"}, 1, "meshctl ztunnel log takes one argument at most, and there are 2: meshctl ztunnel log [POD] [flags]"},
		{[]string{"cert", "status", "--sort"}, 1, "unknown flag: --sort; `meshctl cert status --help` lists the flags"},
		{[]string{"explain", "a", "b", "--sort"}, 2, "unknown flag: --sort; `meshctl explain --help` lists the flags"},
		{[]string{"check", "--wait", "2"}, 2, `--wait "2": must be a duration, such as 30s or 5m`},
		{[]string{"check", "--wait", "-2s"}, 2, "--wait -2s: must not be negative"},
		{[]string{"namespace", "join", "shop", "--timeout=-1m"}, 1, "--timeout -1m0s: must not be negative"},
		{[]string{"local", "up", "--nodes", "two"}, 1, `--nodes "two": must be a whole number`},
	} {
		stderr, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
		if err != nil {
			t.Fatal(err)
		}
		defer stderr.Close()
		status := Run(t.Context(), tt.args, nil, nil, stderr)
		if _, err := stderr.Seek(0, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		said, err := io.ReadAll(stderr)
		if err != nil {
			t.Fatal(err)
		}
		if status != tt.status || string(said) != "meshctl: "+tt.says+"\n" {
			t.Errorf("%q: %d, %s", tt.args, status, said)
		}
	}
}
