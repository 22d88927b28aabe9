package app

import (
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/tulle-mesh/tulle/internal/admin"
	"github.com/tulle-mesh/tulle/internal/telemetry"
	"github.com/tulle-mesh/tulle/istiod-lite/snapshot"
	"github.com/tulle-mesh/tulle/istiod-lite/source"
	"github.com/tulle-mesh/tulle/istiod-lite/translate"
	"github.com/tulle-mesh/tulle/istiod-lite/xds"
)

func (a *App) buildAdmin(levels admin.Levels) error {
	srv, err := admin.New(admin.Config{Addr: a.cfg.AdminAddress(), Component: "istiod-lite", Dump: a.dump, Levels: levels})
	if err != nil {
		return err
	}
	srv.Handle("GET /healthz/ready", "whether the first configuration is in force", a.ready.Handler())
	srv.Handle("GET /metrics", "Prometheus metrics", telemetry.Handler(a.registry))
	srv.Handle("GET /debug/syncz", "connected proxies and what they have acknowledged", view(func() any { return a.syncz() }))
	srv.Handle("GET /debug/errorz", "what is wrong with the configuration, and what proxies refused", view(func() any { return a.errorz() }))
	srv.Handle("GET /debug/resourcez", "names and versions of the resources in force", view(func() any { return a.resourcez() }))
	a.admin = srv
	return nil
}

// Syncz is what /debug/syncz shows.
type Syncz struct {
	// Serial numbers the snapshot in force; 0 before the first.
	Serial uint64 `json:"serial"`
	// Behind is true while objects have been read that are not served yet: the
	// states of the clients are about older ones.
	Behind  bool               `json:"behind"`
	Clients []xds.ClientStatus `json:"clients"`
}

func (a *App) syncz() Syncz {
	behind := a.pipeline.behind() // asked first: what is served by now, the states below tell of
	s := Syncz{Behind: behind, Clients: a.xds.Status()}
	if snap, _ := a.pipeline.state(); snap != nil {
		s.Serial = snap.Serial
	}
	return s
}

// Errorz is what /debug/errorz shows. All lists are empty when all is well.
type Errorz struct {
	// Source is the state of the configuration; its Problems keep the newest
	// state from coming into force.
	Source source.Status `json:"source"`
	// Warnings are about objects in force that do not do all they say.
	Warnings []translate.Warning `json:"warnings"`
	// Refused lists proxies that refused the last response of a type.
	Refused []Refused `json:"refused"`
}

// Refused is one proxy's refusal.
type Refused struct {
	Node    string    `json:"node"`
	Type    string    `json:"type"`
	Message string    `json:"message"`
	At      time.Time `json:"at"`
}

func (a *App) errorz() Errorz {
	_, warnings := a.pipeline.state()
	e := Errorz{Source: a.backend.source.Status(), Warnings: warnings, Refused: []Refused{}}
	if e.Warnings == nil {
		e.Warnings = []translate.Warning{}
	}
	for _, c := range a.xds.Status() {
		for _, url := range slices.Sorted(maps.Keys(c.Types)) {
			if w := c.Types[url]; w.LastNack != "" {
				e.Refused = append(e.Refused, Refused{Node: c.Node, Type: url, Message: w.LastNack, At: w.AckedAt})
			}
		}
	}
	return e
}

// resourcez maps each type to the versions of its resources by name.
func (a *App) resourcez() map[string]map[string]string {
	out := map[string]map[string]string{}
	snap, _ := a.pipeline.state()
	for _, url := range snapshot.Types() {
		out[url] = map[string]string{}
		if snap == nil {
			continue
		}
		for name, e := range snap.Sets[url].Entries {
			out[url][name] = e.Version
		}
	}
	return out
}

// dump is /config_dump: the settings and the state in one.
func (a *App) dump() any {
	return map[string]any{"config": a.cfg, "errors": a.errorz(), "sync": a.syncz(), "resources": a.resourcez()}
}

// view serves a value as JSON.
func view(value func() any) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		body, err := json.MarshalIndent(value(), "", "  ")
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Write(append(body, '\n'))
	})
}
