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
		{[]string{"route", "check", "--port", "80"}, 2, "--service is missing: the service that the request is for"},
		{[]string{"route", "check", "--service", "web"}, 2, "--port is missing: the port of web that the request is for"},
		{[]string{"route", "check", "--service", "web", "--port", "70000"}, 2, `--port "70000": must be a port, 1 to 65535`},
		{[]string{"route", "check", "--service", "web", "--port", "80", "--method", "G T"}, 2, `--method "G T": must be a method, such as GET`},
		{[]string{"route", "check", "--service", "web", "--port", "80", "--path", "items"}, 2, `--path "items": must begin with a slash`},
		{[]string{"route", "check", "--service", "web", "--port", "80", "-H", "novalue"}, 2, `--header "novalue": must be NAME:VALUE`},
		{[]string{"route", "check", "--service", "web", "--port", "80", "--from", "web"}, 2, `--from "web": must be NAMESPACE/SERVICEACCOUNT or a SPIFFE ID`},
		{[]string{"route", "check", "--service", "web", "--port", "80", "--waypoint", ""}, 2, "--waypoint: must not be empty"},
		{[]string{"route", "check", "--service", "a/b/c", "--port", "80"}, 2, `--service "a/b/c": must be NAME, NAMESPACE/NAME or a hostname`},
		{[]string{"route", "list", "--service", ""}, 1, "--service: must not be empty"},
		{[]string{"explain", "a", "b", "--method", "G T"}, 2, `--method "G T": must be a method, such as GET`},
		{[]string{"explain", "a", "b", "--path", "x"}, 2, `--path "x": must begin with a slash`},
		{[]string{"explain", "a", "b", "-o", "xml"}, 2, `--output "xml": must be table, wide, json or yaml`},
		{[]string{"ratelimit", "list", "a/b", "c"}, 1, "meshctl ratelimit list takes one argument at most, and there are 2: meshctl ratelimit list [NAMESPACE/POLICY[/RULE]] [flags]"},
		{[]string{"ratelimit", "list", "shop/fair", "-n", "pay"}, 1, "shop/fair is of namespace shop, and --namespace says pay"},
		{[]string{"ratelimit", "status", "--keys", "-1"}, 1, "--keys -1: must be 1 to 10000"},
		{[]string{"ratelimit", "status", "-n", "Shop"}, 1, `--namespace "Shop": must be the name of a namespace`},
		{[]string{"waypoint", "top", "--interval", "1ms"}, 1, "--interval 1ms: must be 200ms or more"},
		{[]string{"waypoint", "top", "--service", "a b"}, 1, `--service "a b": must be NAME, NAMESPACE/NAME or a hostname`},
		{[]string{"waypoint", "tap", "--status", "abc"}, 1, `--status "abc": must be a status, such as 200, 5xx or 400-499`},
		{[]string{"waypoint", "tap", "--decision", "maybe"}, 1, `--decision "maybe": must be routed, denied, limited or failed`},
		{[]string{"waypoint", "tap", "--min-latency", "soon"}, 1, `--min-latency "soon": must be a duration, such as 100ms`},
		{[]string{"waypoint", "tap", "--min-latency=-1s"}, 1, `--min-latency "-1s": must be a duration, such as 100ms`},
		{[]string{"waypoint", "tap", "--method", "G T"}, 1, `--method "G T": must be a method, such as GET`},
		{[]string{"waypoint", "tap", "--max-requests", "-1"}, 1, "--max-requests -1: must not be negative"},
		{[]string{"waypoint", "tap", "--for", "-1s"}, 1, "--for -1s: must not be negative"},
		{[]string{"waypoint", "generate", "--name", "A_b"}, 1, `--name "A_b": must be lower-case letters, digits and dashes, at most 63, and begin with a letter`},
		{[]string{"waypoint", "generate", "--name", ""}, 1, "--name: must not be empty"},
		{[]string{"waypoint", "generate", "-n", "Shop"}, 1, `--namespace "Shop": must be the name of a namespace`},
		{[]string{"waypoint", "generate", "--revision", "a b"}, 1, `--revision "a b": must be the value of a label`},
		{[]string{"waypoint", "apply", "--wait", "--waypoint-timeout", "0"}, 1, "--waypoint-timeout 0s: --wait needs some time"},
		{[]string{"waypoint", "delete", "--all", "x"}, 1, "--all: means all waypoints of the namespace; leave the names out"},
		{[]string{"waypoint", "status", "x", "y"}, 1, "meshctl waypoint status takes one argument at most, and there are 2: meshctl waypoint status [NAME] [flags]"},
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
