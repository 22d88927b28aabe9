package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

// drainTimeout bounds how long requests under way may take when a program ends.
const drainTimeout = 5 * time.Second

// config is what the flags say.
type config struct {
	// listen is an address; version is told in answers.
	listen, version string
	// details, reviews and ratings are the URLs of the services.
	details, reviews, ratings string
	// stars is the colour of the stars of reviews; empty shows none.
	stars string
}

// programs by name.
var programs = map[string]func(config) http.Handler{
	"httpbin": httpbin, "productpage": productpage, "details": details, "reviews": reviews, "ratings": ratings,
}

func main() {
	log.SetFlags(log.Ltime | log.Lmicroseconds)
	if len(os.Args) < 2 || programs[os.Args[1]] == nil {
		var names []string
		for name := range programs {
			names = append(names, name)
		}
		slices.Sort(names)
		fmt.Fprintln(os.Stderr, "usage: samples", strings.Join(names, "|"), "[flags]")
		os.Exit(2)
	}
	var c config
	flags := flag.NewFlagSet("samples "+os.Args[1], flag.ExitOnError)
	flags.StringVar(&c.listen, "listen", ":8080", "address to listen on")
	flags.StringVar(&c.version, "version", "v1", "version that answers tell")
	flags.StringVar(&c.details, "details", "http://details:9080", "URL of the details")
	flags.StringVar(&c.reviews, "reviews", "http://reviews:9080", "URL of the reviews")
	flags.StringVar(&c.ratings, "ratings", "http://ratings:9080", "URL of the ratings")
	flags.StringVar(&c.stars, "stars", "", "colour of the stars; none without")
	_ = flags.Parse(os.Args[2:]) // ends the program itself
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := serve(ctx, c.listen, logged(programs[os.Args[1]](c))); err != nil {
		log.Fatal(err)
	}
}

// serve returns when ctx ends, after the requests under way.
func serve(ctx context.Context, address string, h http.Handler) error {
	s := &http.Server{Addr: address, Handler: h, ReadHeaderTimeout: 10 * time.Second, Protocols: new(http.Protocols)}
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetUnencryptedHTTP2(true)
	failed := make(chan error, 1)
	go func() { failed <- s.ListenAndServe() }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
	defer cancel()
	err := s.Shutdown(drain)
	if served := <-failed; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}

// logged writes a line for each request but those of probes.
func logged(h http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		log.Printf("%s %s host=%s", r.Method, r.URL.RequestURI(), r.Host)
		h.ServeHTTP(w, r)
	})
	return mux
}
