package app

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tulle-mesh/tulle/waypoint/forward"
	"github.com/tulle-mesh/tulle/waypoint/report"
)

// tapped is a waypoint whose requests are watched. It ends with end.
func tapped(t *testing.T) (w *waypoint, end func()) {
	t.Helper()
	w = &waypoint{}
	var err error
	if w.report, err = report.New(report.Config{Output: io.Discard}); err != nil {
		t.Fatal(err)
	}
	return w, func() {
		w.sessions.close()
		w.report.Close()
	}
}

// happen reports requests with these paths.
func (w *waypoint) happen(paths ...string) {
	client := &forward.Client{Version: 1}
	for _, p := range paths {
		w.report.Report(&forward.Record{Client: client, Method: "GET", Path: p, Status: 200, GRPC: -1})
	}
}

// askTap asks the page /tap, and returns its status and the paths of the requests that
// it tells of.
func (w *waypoint) askTap(ctx context.Context, session, wait string) (int, string) {
	q := url.Values{"session": {session}, "wait": {wait}}
	rw := httptest.NewRecorder()
	w.tap(rw, httptest.NewRequest(http.MethodGet, "/tap?"+q.Encode(), nil).WithContext(ctx))
	if rw.Code != http.StatusOK {
		return rw.Code, rw.Body.String()
	}
	var list []report.Live
	if err := json.Unmarshal(rw.Body.Bytes(), &list); err != nil {
		return 0, err.Error()
	}
	var paths strings.Builder
	for _, l := range list {
		paths.WriteString(l.Path)
	}
	return rw.Code, paths.String()
}

func TestTapSessionKeepsWhatComesBetweenItsQuestions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, end := tapped(t)
		defer end()
		ask := func(want string, after time.Duration) {
			t.Helper()
			begun := time.Now()
			if code, got := w.askTap(t.Context(), "a", "1s"); code != 200 || got != want || time.Since(begun) != after {
				t.Errorf("%d %q after %v, want %q after %v", code, got, time.Since(begun), want, after)
			}
		}
		ask("", time.Second)
		w.happen("/1", "/2", "/3")
		time.Sleep(tapSession / 2)
		w.happen("/4")
		ask("/1/2/3/4", 0)
		go func() {
			time.Sleep(time.Second / 2)
			w.happen("/5")
		}()
		ask("/5", time.Second/2)
		w.happen("/6")
		if _, got := w.askTap(t.Context(), "b", "0s"); got != "" {
			t.Errorf("another session, which has just begun, has %q", got)
		}
		time.Sleep(tapSession + time.Second) // nobody asks: the session ends
		w.happen("/7")
		ask("", time.Second)
	})
}

// TestAskersOfOneTapSessionDoNotWaitForEachOther: one of them may take what another has
// seen coming.
func TestAskersOfOneTapSessionDoNotWaitForEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, end := tapped(t)
		defer end()
		w.askTap(t.Context(), "a", "0s")
		for range 2000 {
			w.happen("/1", "/2", "/3")
			var mu sync.Mutex
			var all string
			var askers sync.WaitGroup
			for range 4 {
				askers.Go(func() {
					_, got := w.askTap(t.Context(), "a", "1ms")
					mu.Lock()
					defer mu.Unlock()
					all += got
				})
			}
			askers.Wait() // the test is deadlocked if one never returns
			if len(all) != len("/1/2/3") {
				t.Fatalf("together they have %q", all)
			}
		}
	})
}

func TestTapSessionsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, end := tapped(t)
		defer end()
		for _, c := range []struct{ session, wait, want string }{
			{"a", "soon", `wait: "soon"`},
			{"a", "-1s", `wait: "-1s"`},
			{"a", (tapSession/2 + 1).String(), "wait: "},
			{strings.Repeat("a", 65), "", "session: "},
		} {
			if code, got := w.askTap(t.Context(), c.session, c.wait); code != http.StatusBadRequest || !strings.Contains(got, c.want) {
				t.Errorf("session %q, wait %q: %d %s", c.session, c.wait, code, got)
			}
		}
		sessions := 0
		for ; sessions < 1000; sessions++ {
			if code, _ := w.askTap(t.Context(), fmt.Sprint(sessions), "0s"); code != http.StatusOK {
				if code != http.StatusTooManyRequests {
					t.Errorf("status %d", code)
				}
				break
			}
		}
		if sessions == 0 || sessions == 1000 {
			t.Errorf("%d sessions", sessions)
		}
		time.Sleep(tapSession + time.Second)
		if code, _ := w.askTap(t.Context(), "another", "0s"); code != http.StatusOK {
			t.Errorf("after the end of all sessions: status %d", code)
		}
	})
}

func TestTapSessionEndsWithItsAskerAndTheWaypoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, end := tapped(t)
		ctx, cancel := context.WithCancel(t.Context())
		begun := time.Now()
		time.AfterFunc(time.Second, cancel)
		w.askTap(ctx, "a", "5s")
		if took := time.Since(begun); took != time.Second {
			t.Errorf("an asker that went was waited for for %v", took)
		}
		begun = time.Now()
		time.AfterFunc(time.Second, end)
		w.askTap(t.Context(), "a", "5s")
		if took := time.Since(begun); took != time.Second {
			t.Errorf("an answer came %v after the question, and the waypoint ended after 1s", took)
		}
	})
}
