// Command shop-client buys something in the example shop, once or many times,
// and says how long it took.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"sort"
	"strings"
	"time"
)

// result is what -json prints.
type result struct {
	// Answer is the shop's last one.
	Answer string        `json:"answer"`
	N      int           `json:"n"`
	P50    time.Duration `json:"p50"`
	P99    time.Duration `json:"p99"`
}

func main() {
	shop := flag.String("url", "http://web", "URL of the shop")
	item := flag.String("item", "apple", "what to buy")
	note := flag.String("note", "no note", "note on the order")
	n := flag.Int("n", 1, "how many orders, one after the other on one connection")
	fresh := flag.Bool("fresh", false, "a new connection for each order")
	timeout := flag.Duration("timeout", 10*time.Second, "limit for one order")
	asJSON := flag.Bool("json", false, "print the result as JSON")
	flag.Parse()
	r, err := buy(*shop, *item, *note, *n, *fresh, *timeout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "shop-client:", err)
		os.Exit(1)
	}
	if *asJSON {
		json.NewEncoder(os.Stdout).Encode(r)
		return
	}
	fmt.Print(r.Answer)
	if r.N > 1 {
		fmt.Printf("%d orders: half within %v, 99%% within %v\n", r.N, r.P50, r.P99)
	}
}

func buy(shop, item, note string, n int, fresh bool, timeout time.Duration) (result, error) {
	client := &http.Client{Timeout: timeout, Transport: &http.Transport{DisableKeepAlives: fresh}}
	target := strings.TrimSuffix(shop, "/") + "/order?" + url.Values{"item": {item}, "n": {"1"}, "note": {note}}.Encode()
	var (
		r     result
		times []time.Duration
	)
	for range n {
		begin := time.Now()
		res, err := client.Get(target)
		if err != nil {
			return r, err
		}
		body, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
		res.Body.Close()
		if err != nil {
			return r, err
		}
		if res.StatusCode != http.StatusOK {
			return r, fmt.Errorf("%s: %s", res.Status, strings.TrimSpace(string(body)))
		}
		times = append(times, time.Since(begin))
		r.Answer = string(body)
	}
	sort.Slice(times, func(i, j int) bool { return times[i] < times[j] })
	if r.N = len(times); r.N > 0 {
		r.P50, r.P99 = times[r.N/2], times[r.N*99/100]
	}
	return r, nil
}
