// Command shop-api is the example shop's API: HTTP toward the frontend, the
// stock's line protocol behind it. It opens a connection to the stock for each
// order, so that each order is one line in the mesh's access log.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"log"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/tulle-mesh/tulle/examples/shop/stock"
)

type order struct {
	Item string `json:"item"`
	N    int    `json:"n"`
	Note string `json:"note"`
	// Number and Left are the answer's.
	Number int64 `json:"number"`
	Left   int   `json:"left"`
}

func main() {
	listen := flag.String("listen", ":8080", "address to listen on")
	address := flag.String("stock", "stock:7000", "host:port of the stock")
	flag.Parse()
	log.SetFlags(log.Ltime | log.Lmicroseconds)
	api := &api{stock: *address}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("GET /items", api.items)
	mux.HandleFunc("POST /orders", api.order)
	server := &http.Server{Addr: *listen, Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	log.Printf("api on %s, stock at %s", *listen, *address)
	log.Fatal(server.ListenAndServe())
}

type api struct {
	stock  string
	orders atomic.Int64
}

func (a *api) dial(ctx context.Context) (*stock.Client, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return stock.Dial(ctx, a.stock)
}

func (a *api) items(w http.ResponseWriter, r *http.Request) {
	c, err := a.dial(r.Context())
	if err != nil {
		http.Error(w, "stock: "+err.Error(), http.StatusBadGateway)
		return
	}
	defer c.Close()
	items, err := c.List()
	if err != nil {
		http.Error(w, "stock: "+err.Error(), http.StatusBadGateway)
		return
	}
	json.NewEncoder(w).Encode(items)
}

func (a *api) order(w http.ResponseWriter, r *http.Request) {
	var o order
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 64<<10)).Decode(&o); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	c, err := a.dial(r.Context())
	if err != nil {
		http.Error(w, "stock: "+err.Error(), http.StatusBadGateway)
		return
	}
	defer c.Close()
	o.Left, err = c.Take(o.Item, o.N, o.Note)
	switch {
	case errors.Is(err, stock.ErrRefused):
		http.Error(w, err.Error(), http.StatusConflict)
		return
	case err != nil:
		http.Error(w, "stock: "+err.Error(), http.StatusBadGateway)
		return
	}
	o.Number = a.orders.Add(1)
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(o)
}
