package http1_test

import (
	"bytes"
	"context"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tulle-mesh/tulle/waypoint/http1"
	"github.com/tulle-mesh/tulle/waypoint/message"
)

// pause is a wait of some length, often none; most are about as long as what the codecs
// do only after a moment.
func pause(r *rand.Rand) time.Duration {
	return []time.Duration{0, 0, 0, 50, 99, 100, 101, 150, 200, 201, 1000}[r.IntN(11)] * time.Millisecond
}

func size(r *rand.Rand) int {
	return []int{0, 1, 100, 1023, 4096, 5000, 16 << 10, 70_000}[r.IntN(8)]
}

// obey does what the request's fields say.
func obey(t *testing.T) message.Handler {
	return func(_ context.Context, x message.Exchange) {
		h := x.Request().Header
		number := func(name string) int {
			n, err := strconv.Atoi(h.Get(name))
			if err != nil {
				t.Error(err)
			}
			return n
		}
		sum := uint32(0)
		failed := func(what string, err error) {
			if h.Get("x-doomed") != "true" {
				t.Errorf("%s: %v", what, err)
			}
		}
		time.Sleep(time.Duration(number("x-before")))
		if h.Get("x-read") == "true" {
			content, err := io.ReadAll(readerOf(x.Body()))
			if err != nil {
				failed("read", err)
			}
			sum = crc32.ChecksumIEEE(content)
		}
		time.Sleep(time.Duration(number("x-after")))
		n := number("x-size")
		length := int64(n)
		if h.Get("x-chunked") == "true" {
			length = -1
		}
		if err := x.Respond(&message.Response{Status: 200, Header: field("x-sum", fmt.Sprint(sum)), Length: length}, length == 0); err != nil {
			failed("respond", err)
		}
		for part := max(1, number("x-part")); n > 0; n -= part {
			part = min(part, n)
			if _, err := x.Write(bytes.Repeat([]byte{'x'}, part)); err != nil {
				failed("write", err)
				break
			}
			if part%2 == 0 {
				_ = x.Flush()
			}
		}
		if err := x.Close(nil); err != nil {
			failed("close", err)
		}
	}
}

// TestRandomTraffic runs requests of all kinds, with pauses in all places, over few
// connections, in virtual time: no response is lost, cut short or another's.
func TestRandomTraffic(t *testing.T) {
	late := 0
	for seed := range uint64(15) {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			config := http1.ServerConfig{HeadTimeout: time.Minute, IdleTimeout: time.Minute, StallTimeout: time.Minute}
			server := &http1.Server{Config: config, Handler: obey(t)}
			var client *http1.ClientConn
			var ended <-chan error
			connections := 0
			for i := range 60 {
				if client == nil || !client.Usable() {
					if client != nil {
						_ = client.Close()
						<-ended
					}
					// A pipe would not do: it has no room for what crosses on its way.
					a, b := memoryPair()
					result := make(chan error, 1)
					go func() { result <- server.Serve(context.Background(), b) }()
					ended = result
					client, _ = http1.NewClient(a, http1.ClientConfig{})
					connections++
				}
				content := bytes.Repeat([]byte{'y'}, size(r))
				answer := size(r)
				// A server that reads nothing of a larger or slower content closes, which the
				// client may see while it writes, or with the next request.
				reads := r.IntN(8) > 0 || len(content) > 5000
				h := field("x-before", fmt.Sprint(int(pause(r))))
				h.Add("x-after", fmt.Sprint(int(pause(r))))
				h.Add("x-size", fmt.Sprint(answer))
				h.Add("x-part", fmt.Sprint(1+r.IntN(20_000)))
				h.Add("x-read", fmt.Sprint(reads))
				// Some have too little time, as the pauses have it.
				timeout := time.Hour
				if r.IntN(6) == 0 {
					timeout = time.Duration(r.IntN(400)) * time.Millisecond
					h.Add("x-doomed", "true")
				}
				h.Add("x-chunked", fmt.Sprint(r.IntN(2) == 0))
				request := &message.Request{Method: "POST", Authority: "a", Path: fmt.Sprint("/", i), Header: h, Length: int64(len(content))}
				if r.IntN(2) == 0 {
					request.Length = -1
				}
				ctx, cancel := context.WithTimeout(t.Context(), timeout)
				began := time.Now()
				x, err := client.Open(ctx, request, request.Length == 0)
				if err != nil && ctx.Err() != nil && message.Unsent(err) {
					cancel()
					continue
				}
				if err != nil {
					t.Fatalf("request %d: %v", i, err)
				}
				upload := func(pauses ...time.Duration) {
					for len(content) > 0 {
						part := min(1+r.IntN(20_000), len(content))
						if _, err := x.Write(content[:part]); err != nil {
							if timeout == time.Hour {
								t.Errorf("request %d: write: %v", i, err)
							}
							return
						}
						content = content[part:]
						for _, p := range pauses {
							time.Sleep(p)
						}
					}
					if request.Length != 0 {
						if err := x.CloseWrite(nil); err != nil && timeout == time.Hour {
							t.Errorf("request %d: close: %v", i, err)
						}
					}
				}
				want := fmt.Sprintf("x-sum=%q", "0")
				if reads {
					want = fmt.Sprintf("x-sum=%q", fmt.Sprint(crc32.ChecksumIEEE(content)))
				}
				uploaded := make(chan struct{})
				if p := pause(r); r.IntN(2) == 0 && reads {
					go func() {
						upload(p)
						close(uploaded)
					}()
				} else {
					upload()
					close(uploaded)
				}
				got := read(ctx, x)
				switch whole := strings.Contains(got, want) && strings.Count(got, "x") >= answer && !strings.Contains(got, "incomplete"); {
				case whole:
				case timeout == time.Hour || !strings.Contains(got, "incomplete") && !strings.Contains(got, context.DeadlineExceeded.Error()):
					t.Errorf("seed %d, request %d: got %.200s, want %s and %d octets", seed, i, got, want, answer)
				case time.Since(began) > timeout:
					t.Errorf("seed %d, request %d: ended after %v instead of %v", seed, i, time.Since(began), timeout)
				default:
					late++
				}
				<-uploaded
				_ = x.Close()
				cancel()
				time.Sleep(pause(r))
			}
			_ = client.Close()
			<-ended
			if connections > 25 {
				t.Errorf("%d connections", connections)
			}
		})
	}
	if late == 0 {
		t.Error("no request had too little time")
	}
}
