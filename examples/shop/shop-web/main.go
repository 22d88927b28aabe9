// Command shop-web is the example shop's frontend: a page for people, and
// /order, which takes a query and answers with one line.
package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"html/template"
	"io"
	"log"
	"net/http"
	"strconv"
	"strings"
	"time"
)

var page = template.Must(template.New("page").Parse(`<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Tulle shop</title>
<h1>Tulle shop</h1>
<ul>{{range .}}<li>{{.}}</li>{{end}}</ul>
<form action="/order"><input name="item" value="apple"><input name="n" value="1"><input name="note" placeholder="note"><button>Order</button></form>
</html>
`))

func main() {
	listen := flag.String("listen", ":80", "address to listen on")
	api := flag.String("api", "http://api:8080", "URL of the API")
	flag.Parse()
	log.SetFlags(log.Ltime | log.Lmicroseconds)
	// Idle connections go soon, so that a change of the mesh, which concerns new
	// connections, shows soon.
	transport := &http.Transport{IdleConnTimeout: time.Second, MaxIdleConnsPerHost: 16}
	w := &web{api: strings.TrimSuffix(*api, "/"), client: &http.Client{Timeout: 10 * time.Second, Transport: transport}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("GET /{$}", w.page)
	mux.HandleFunc("GET /order", w.order)
	server := &http.Server{Addr: *listen, Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	log.Printf("web on %s, api at %s", *listen, *api)
	log.Fatal(server.ListenAndServe())
}

type web struct {
	api    string
	client *http.Client
}

func (w *web) page(rw http.ResponseWriter, r *http.Request) {
	var items []string
	if err := w.ask(r, http.MethodGet, "/items", nil, &items); err != nil {
		http.Error(rw, err.Error(), http.StatusBadGateway)
		return
	}
	page.Execute(rw, items)
}

func (w *web) order(rw http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	n, err := strconv.Atoi(query.Get("n"))
	if err != nil {
		n = 1
	}
	var done struct {
		Number int64
		Left   int
	}
	body, err := json.Marshal(map[string]any{"item": query.Get("item"), "n": n, "note": query.Get("note")})
	if err == nil {
		err = w.ask(r, http.MethodPost, "/orders", body, &done)
	}
	if err != nil {
		http.Error(rw, err.Error(), http.StatusBadGateway)
		return
	}
	fmt.Fprintf(rw, "order %d: %d %s, noted %q; %d left\n", done.Number, n, query.Get("item"), query.Get("note"), done.Left)
}

// ask asks the API and decodes its answer.
func (w *web) ask(r *http.Request, method, path string, body []byte, into any) error {
	req, err := http.NewRequestWithContext(r.Context(), method, w.api+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	res, err := w.client.Do(req)
	if err != nil {
		return fmt.Errorf("api: %w", err)
	}
	defer res.Body.Close()
	data, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil {
		return fmt.Errorf("api: %w", err)
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("api: %s: %s", res.Status, strings.TrimSpace(string(data)))
	}
	return json.Unmarshal(data, into)
}
