package supervisor

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// controlPlaneState is what istiod-lite says of the objects that it was given.
type controlPlaneState struct {
	// read is when it began to read objects last that are all in force.
	read time.Time
	// problems keep the newest objects from coming into force; warnings are about
	// objects that do not do all they say.
	problems, warnings []string
	// behind is true while it has read objects that it does not serve yet.
	behind bool
	// unsynced names a proxy, "node/ztunnel" or "node/waypoint", that does not have
	// everything yet; empty when all do.
	unsynced string
	ztunnels int // that are connected
}

// askControlPlane asks istiod-lite's debug pages.
func (s *Supervisor) askControlPlane(ctx context.Context) (controlPlaneState, error) {
	var (
		state  controlPlaneState
		errorz struct {
			Source struct {
				LastRead time.Time
				Problems []struct {
					File, Object, Field, Message string
				}
			}
			Warnings []map[string]any
			Refused  []struct{ Node, Type, Message string }
		}
		syncz struct {
			Behind  bool
			Clients []xdsClient
		}
	)
	if err := s.controlPlanePage(ctx, "errorz", &errorz); err != nil {
		return state, err
	}
	if err := s.controlPlanePage(ctx, "syncz", &syncz); err != nil {
		return state, err
	}
	state.read = errorz.Source.LastRead
	for _, p := range errorz.Source.Problems {
		text := p.Object
		if text == "" {
			text = p.File
		}
		if p.Field != "" {
			text += ": " + p.Field
		}
		state.problems = append(state.problems, text+": "+p.Message)
	}
	for _, r := range errorz.Refused {
		state.problems = append(state.problems, fmt.Sprintf("proxy %s refused %s: %s", r.Node, r.Type, r.Message))
	}
	for _, w := range errorz.Warnings {
		state.warnings = append(state.warnings, warning(w))
	}
	state.behind = syncz.Behind
	state.ztunnels, state.unsynced = progress(syncz.Clients)
	return state, nil
}

// xdsClient is a proxy as istiod-lite's syncz page has it.
type xdsClient struct {
	// Node is "ROLE~ADDRESS~…", Machine the node.
	Machine, Node string
	Types         map[string]struct{ State string }
}

// progress counts the ztunnels that are connected, and names a proxy that does not have
// everything yet. A waypoint on a node says nothing of the node's ztunnel.
func progress(clients []xdsClient) (ztunnels int, unsynced string) {
	for _, c := range clients {
		role, _, _ := strings.Cut(c.Node, "~")
		if role == "ztunnel" {
			ztunnels++
		}
		for _, t := range c.Types {
			if t.State != "SYNCED" {
				unsynced = c.Machine + "/" + role
			}
		}
	}
	return ztunnels, unsynced
}

// warning puts the fields of a warning in an order that reads.
func warning(w map[string]any) string {
	text := ""
	for _, field := range []string{"object", "field", "message"} {
		if v, ok := w[field].(string); ok && v != "" {
			if text != "" {
				text += ": "
			}
			text += v
		}
	}
	if text == "" {
		text = fmt.Sprint(w)
	}
	return text
}

func (s *Supervisor) controlPlanePage(ctx context.Context, page string, into any) error {
	url := fmt.Sprintf("http://127.0.0.1:%d/debug/%s", portIstiodAdmin, page)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	res, err := clientIn(s.home).Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("istiod-lite: %s: %s", page, res.Status)
	}
	return json.NewDecoder(res.Body).Decode(into)
}
