package http2_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/waypoint/message"
)

// pattern is content that tells where it was cut or mixed up.
func pattern(seed, n int) string {
	var b strings.Builder
	for b.Len() < n {
		fmt.Fprintf(&b, "%d:%d %s", seed, b.Len(), filler)
	}
	return b.String()[:n]
}

var filler = strings.Repeat(".", 500)

// TestRandomExchanges has both sides send, read, give up and break off as they like.
// Whatever passes for whole must be whole and nobody else's, and nothing may stay.
func TestRandomExchanges(t *testing.T) {
	onAll(t, func(t *testing.T, via conns) {
		var whole, broken atomic.Int64
		server := handled(func(ctx context.Context, x message.Exchange) {
			h := x.Request().Header
			n, _ := strconv.Atoi(h.Get("want"))
			seed, _ := strconv.Atoi(h.Get("seed"))
			r := rand.New(rand.NewPCG(uint64(seed), 7))
			if r.IntN(3) > 0 {
				got, err := io.ReadAll(io.LimitReader(x.Body(), int64(r.IntN(100<<10))))
				if err == nil && !strings.HasPrefix(pattern(seed, 200<<10), string(got)) {
					t.Error("the content of a request is not what was sent")
				}
			}
			length := int64(-1)
			if r.IntN(2) == 0 {
				length = int64(n)
			}
			if x.Respond(&message.Response{Status: 200, Length: length}, false) != nil {
				return
			}
			content := pattern(seed, n)
			for len(content) > 0 {
				k := min(len(content), 1+r.IntN(40<<10))
				if _, err := x.Write([]byte(content[:k])); err != nil {
					return
				}
				content = content[k:]
				switch r.IntN(20) {
				case 0:
					x.Abort(errors.New("no more"))
					return
				case 1:
					return
				case 2, 3, 4:
					_ = x.Flush()
				}
			}
			_ = x.Close(message.Header{{Name: "seed", Value: h.Get("seed")}})
		})
		client := connect(t, via, server)
		ask := func(seed int) {
			r := rand.New(rand.NewPCG(uint64(seed), 8))
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			if r.IntN(10) == 0 {
				defer time.AfterFunc(time.Duration(r.IntN(3000))*time.Microsecond, cancel).Stop()
			}
			want := r.IntN(2) * r.IntN(150<<10)
			q := post("/")
			q.Header = message.Header{{Name: "seed", Value: strconv.Itoa(seed)}, {Name: "want", Value: strconv.Itoa(want)}}
			x, err := client.Open(ctx, q, false)
			if err != nil {
				if !message.Unsent(err) {
					t.Errorf("Open: %v", err)
				}
				return
			}
			var sending sync.WaitGroup
			defer sending.Wait()
			defer func() { _ = x.Close() }()
			content := pattern(seed, r.IntN(2)*r.IntN(150<<10))
			sending.Go(func() {
				if _, err := io.WriteString(x, content); err == nil {
					_ = x.CloseWrite(nil)
				}
			})
			if r.IntN(20) == 0 {
				return
			}
			p, err := x.Response(ctx)
			if err != nil {
				broken.Add(1)
				return
			}
			if r.IntN(20) == 0 {
				return
			}
			got, err := io.ReadAll(x.Body())
			full := pattern(seed, want)
			switch {
			case err == nil && (string(got) != full || x.Body().Trailer().Get("seed") != strconv.Itoa(seed)):
				t.Errorf("exchange %d: %d octets of %d passed for whole, trailers %v", seed, len(got), want, x.Body().Trailer())
			case err == nil:
				whole.Add(1)
				if p.Length >= 0 && p.Length != int64(want) {
					t.Errorf("exchange %d: length %d of %d", seed, p.Length, want)
				}
			default:
				broken.Add(1)
				if !strings.HasPrefix(full, string(got)) {
					t.Errorf("exchange %d: what came is not what was sent", seed)
				}
			}
		}
		var wg sync.WaitGroup
		for i := range 16 {
			wg.Go(func() {
				for j := range 40 {
					ask(i*1000 + j)
				}
			})
		}
		wg.Wait()
		if n := client.Active(); n != 0 {
			t.Errorf("%d requests are still under way", n)
		}
		if whole.Load() == 0 || broken.Load() == 0 {
			t.Errorf("%d whole, %d broken", whole.Load(), broken.Load())
		}
		if !client.Usable() {
			t.Errorf("the connection has ended: %v", client.Err())
		}
	})
}
