package cli

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// apiServer answers as a cluster with three namespaces; it returns its kubeconfig.
func apiServer(t *testing.T) string {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("/version", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"gitVersion":"v1.36.0"}`) })
	mux.HandleFunc("/api/v1/namespaces", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"kind":"NamespaceList","apiVersion":"v1","items":[{"metadata":{"name":"shop"}},{"metadata":{"name":"shipping"}},{"metadata":{"name":"default"}}]}`)
	})
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	file := filepath.Join(t.TempDir(), "kubeconfig")
	text := `{"apiVersion":"v1","kind":"Config","current-context":"here","contexts":[{"name":"here","context":{"cluster":"c","user":"u"}}],` +
		`"users":[{"name":"u","user":{}}],"clusters":[{"name":"c","cluster":{"server":"` + srv.URL + `"}}]}`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestMembershipCommandsCompleteNamespaces(t *testing.T) {
	file := apiServer(t)
	for _, verb := range []string{"join", "leave", "list"} {
		for typed, want := range map[string]string{"": "default shipping", "sh": "shipping", "x": ""} {
			var out bytes.Buffer
			s := &streams{out: &out, err: &out}
			cmd := newNamespace(s)
			cmd.SetOut(&out)
			cmd.SetErr(&bytes.Buffer{})
			cmd.SetArgs([]string{"__complete", verb, "--kubeconfig", file, "shop", typed})
			if err := cmd.ExecuteContext(t.Context()); err != nil {
				t.Fatal(err)
			}
			lines := strings.Split(strings.TrimSpace(out.String()), "\n")
			got := lines[:len(lines)-1] // the last is the directive
			slices.Sort(got)
			if strings.Join(got, " ") != want || lines[len(lines)-1] != ":4" {
				t.Errorf("%s shop %s: %q", verb, typed, lines)
			}
		}
	}
}
