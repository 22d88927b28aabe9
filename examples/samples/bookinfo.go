package main

import (
	"context"
	"encoding/json"
	"fmt"
	"html/template"
	"io"
	"net/http"
	"time"
)

const (
	// askTimeout bounds what one service waits for another: longer than the delays
	// that the steps inject.
	askTimeout = 5 * time.Second
	// maxAnswer bounds what is read of an answer, in bytes.
	maxAnswer = 1 << 20
)

// followed are the fields by which a request is followed through the services: those
// of traces, and who is asking.
var followed = []string{"end-user", "x-request-id", "traceparent", "tracestate", "b3", "x-b3-traceid", "x-b3-spanid", "x-b3-parentspanid", "x-b3-sampled"}

// asker asks other services.
type asker struct{ client *http.Client }

func newAsker() asker {
	// No connection is kept, so that a change of the mesh shows with the next request.
	return asker{&http.Client{Timeout: askTimeout, Transport: &http.Transport{DisableKeepAlives: true}}}
}

// ask gets JSON on behalf of r.
func (a asker) ask(r *http.Request, url string, into any) error {
	req, err := http.NewRequestWithContext(context.WithoutCancel(r.Context()), http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	for _, name := range followed {
		if v := r.Header.Values(name); len(v) > 0 {
			req.Header[http.CanonicalHeaderKey(name)] = v
		}
	}
	resp, err := a.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answered %d", url, resp.StatusCode)
	}
	return json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(into)
}

// ratingsOf are the stars of each reviewer.
type ratingsOf struct {
	Ratings map[string]int `json:"ratings"`
}

func ratings(config) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /ratings/{id}", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, ratingsOf{map[string]int{"Reviewer1": 5, "Reviewer2": 4}})
	})
	return mux
}

// rating is what a version that has stars shows.
type rating struct {
	Stars int    `json:"stars,omitempty"`
	Color string `json:"color,omitempty"`
	Error string `json:"error,omitempty"`
}

type review struct {
	Reviewer string  `json:"reviewer"`
	Text     string  `json:"text"`
	Rating   *rating `json:"rating,omitempty"`
}

type reviewsOf struct {
	Version string   `json:"version"`
	Reviews []review `json:"reviews"`
}

func reviews(c config) http.Handler {
	a, mux := newAsker(), http.NewServeMux()
	mux.HandleFunc("GET /reviews/{id}", func(w http.ResponseWriter, r *http.Request) {
		out := reviewsOf{Version: c.version, Reviews: []review{
			{Reviewer: "Reviewer1", Text: "A play of mistaken names, and a quick one."},
			{Reviewer: "Reviewer2", Text: "Two pairs of twins are two too many."},
		}}
		if c.stars != "" {
			var got ratingsOf
			err := a.ask(r, c.ratings+"/ratings/"+r.PathValue("id"), &got)
			for i := range out.Reviews {
				out.Reviews[i].Rating = &rating{Stars: got.Ratings[out.Reviews[i].Reviewer], Color: c.stars}
				if err != nil {
					out.Reviews[i].Rating = &rating{Error: "ratings are not available"}
				}
			}
		}
		writeJSON(w, http.StatusOK, out)
	})
	return mux
}

type detailsOf struct {
	Author string `json:"author"`
	Year   int    `json:"year"`
	Type   string `json:"type"`
	Pages  int    `json:"pages"`
}

func details(config) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /details/{id}", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, detailsOf{Author: "William Shakespeare", Year: 1595, Type: "paperback", Pages: 200})
	})
	return mux
}

// product is the whole page; what could not be had is named in Errors.
type product struct {
	Title   string     `json:"title"`
	Details *detailsOf `json:"details,omitempty"`
	Reviews *reviewsOf `json:"reviews,omitempty"`
	Errors  []string   `json:"errors,omitempty"`
}

var page = template.Must(template.New("page").Parse(`<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{{.Title}}</title>
<h1>{{.Title}}</h1>
{{with .Details}}<p>{{.Author}}, {{.Year}}, {{.Type}}, {{.Pages}} pages</p>{{end}}
{{with .Reviews}}<p>Reviews {{.Version}}</p>
<ul>{{range .Reviews}}<li>{{.Text}} ({{.Reviewer}}){{with .Rating}} {{if .Error}}{{.Error}}{{else}}<b style="color: {{.Color}}">{{.Stars}} stars</b>{{end}}{{end}}</li>{{end}}</ul>{{end}}
{{range .Errors}}<p><em>{{.}}</em></p>{{end}}
</html>
`))

func productpage(c config) http.Handler {
	a, mux := newAsker(), http.NewServeMux()
	get := func(r *http.Request) product {
		p := product{Title: "The Comedy of Errors", Details: &detailsOf{}, Reviews: &reviewsOf{}}
		if err := a.ask(r, c.details+"/details/0", p.Details); err != nil {
			p.Details, p.Errors = nil, append(p.Errors, "details are not available: "+err.Error())
		}
		if err := a.ask(r, c.reviews+"/reviews/0", p.Reviews); err != nil {
			p.Reviews, p.Errors = nil, append(p.Errors, "reviews are not available: "+err.Error())
		}
		return p
	}
	mux.HandleFunc("GET /productpage", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_ = page.Execute(w, get(r))
	})
	mux.HandleFunc("GET /api/v1/products/0", func(w http.ResponseWriter, r *http.Request) {
		writeJSON(w, http.StatusOK, get(r))
	})
	return mux
}
