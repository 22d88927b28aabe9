package mesh_test

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"go.uber.org/goleak"

	"github.com/tulle-mesh/tulle/meshctl/local"
	"github.com/tulle-mesh/tulle/meshctl/local/control"
	"github.com/tulle-mesh/tulle/meshctl/mesh"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// supervise plays the supervisor of a local mesh with two nodes, the ztunnel of the
// second of which is gone.
func supervise(t *testing.T) mesh.Mesh {
	t.Helper()
	dir := t.TempDir()
	l, err := net.Listen("unix", control.StateDir(dir).Control())
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, _ *http.Request) {
		ztunnel := []control.Component{{Name: "ztunnel", State: "ready"}}
		json.NewEncoder(w).Encode(control.Status{Nodes: []control.Node{{Name: "node-1", Components: ztunnel}, {Name: "node-2", Components: ztunnel}},
			Pods: []control.Pod{{Namespace: "shop", Name: "web-5c9d-0", Node: "node-1"}, {Namespace: "shop", Name: "client", Node: "node-1"}}})
	})
	mux.HandleFunc("POST /v1/nodes/{node}/ztunnel/logging", func(w http.ResponseWriter, r *http.Request) {
		if r.PathValue("node") == "node-2" {
			http.Error(w, "connection refused", http.StatusBadGateway)
			return
		}
		http.Error(w, "no such level: "+r.FormValue("level"), http.StatusBadRequest)
	})
	server := &httptest.Server{Listener: l, Config: &http.Server{Handler: mux}}
	server.Start()
	t.Cleanup(server.Close)
	m, err := local.Open(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	return mesh.OnThisMachine(m)
}

func TestAComponentOfALocalMeshThatRefusesDoesAnswer(t *testing.T) {
	proxies, err := supervise(t).Components(t.Context(), mesh.Ztunnel)
	if err != nil || len(proxies) != 2 {
		t.Fatalf("%d proxies, %v", len(proxies), err)
	}
	_, errs := mesh.Each(t.Context(), proxies, func(ctx context.Context, c *mesh.Component) ([]byte, error) {
		return c.Post(ctx, "/logging?level=loud")
	})
	var refusal *mesh.RefusalError
	if !errors.As(errs[0], &refusal) || refusal.Status != "400 Bad Request" || errs[0].Error() != "ztunnel on node-1 answers: no such level: loud" {
		t.Errorf("a refusal: %v", errs[0])
	}
	if errors.As(errs[1], &refusal) || errs[1].Error() != "ztunnel on node-2 does not answer: connection refused" {
		t.Errorf("no answer: %v", errs[1])
	}
}

func TestAPodThatALocalMeshDoesNotHaveIsNotFoundWithAWayOn(t *testing.T) {
	m := supervise(t)
	for ref, want := range map[string]string{
		"web":         "there is no pod web: did you mean deploy/web, or its pod web-5c9d-0?",
		"nobody":      "there is no pod nobody: `meshctl local status` lists the pods",
		"deploy/none": "there is no pod of deployment none: `meshctl local status` lists the pods",
	} {
		if _, err := mesh.Find(t.Context(), m, "", ref); err == nil || err.Error() != want {
			t.Errorf("%s: %v", ref, err)
		}
	}
	if p, err := mesh.Find(t.Context(), m, "", "deploy/web"); err != nil || p.Name != "web-5c9d-0" {
		t.Errorf("%+v, %v", p, err)
	}
}
