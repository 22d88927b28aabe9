package ratelimit

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"math/big"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Tests of the buckets are inside of the package: time and keys are handed in.

func counterOf(number uint32, amounts ...amount) *Counter {
	return &Counter{name: "shop/p/r", number: number, amounts: amounts}
}

func localAmount(requests uint64, per time.Duration, burst uint64) amount {
	return newAmount(requests, per, burst, time.Nanosecond, maxUnits)
}

func keyOf(number uint32, key string) []byte {
	return append(binary.BigEndian.AppendUint32(nil, number), key...)
}

// naive is a token bucket in fractions of any size.
type naive struct {
	rate, burst, level *big.Rat // tokens per nanosecond, tokens
	last               int64
}

func newNaive(requests uint64, per time.Duration, burst uint64) *naive {
	b := new(big.Rat).SetInt(new(big.Int).SetUint64(burst))
	return &naive{rate: big.NewRat(int64(requests), int64(per)), burst: b, level: new(big.Rat).Set(b)}
}

func (n *naive) flow(now int64) {
	n.level.Add(n.level, new(big.Rat).Mul(n.rate, big.NewRat(now-n.last, 1)))
	if n.last = now; n.level.Cmp(n.burst) > 0 {
		n.level.Set(n.burst)
	}
}

func (n *naive) has(cost uint64) bool { return n.level.Cmp(big.NewRat(int64(cost), 1)) >= 0 }
func (n *naive) take(cost uint64)     { n.level.Sub(n.level, big.NewRat(int64(cost), 1)) }

func TestBucketsDecideAsANaiveOneInFractionsDoes(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for round := range 200 {
		k := NewKeys(0)
		var amounts []amount
		var reference []*naive
		for range 1 + rng.IntN(3) {
			requests, per, burst := 1+rng.Uint64N(1000), time.Duration(1+rng.IntN(3_600_000))*time.Millisecond, 1+rng.Uint64N(50)
			amounts = append(amounts, localAmount(requests, per, burst))
			reference = append(reference, newNaive(requests, per, burst))
		}
		c := counterOf(uint32(round+1), amounts...)
		now := int64(0)
		for step := range 300 {
			now += rng.Int64N(int64(amounts[0].per)/int64(amounts[0].requests)*2 + 1)
			cost := 1 + rng.Uint64N(3)
			want := true
			for _, n := range reference {
				n.flow(now)
				want = want && n.has(cost)
			}
			var out Outcome
			got := k.take(now, c, keyOf(c.number, "k"), cost, cost, &out)
			if got != want {
				t.Fatalf("round %d, step %d at %v: allowed %v, want %v", round, step, time.Duration(now), got, want)
			}
			if want {
				for _, n := range reference {
					n.take(cost)
				}
				continue
			}
			// What RetryAfter says is the first moment at which it would be allowed.
			possible := true
			for _, n := range reference {
				possible = possible && big.NewRat(int64(cost), 1).Cmp(n.burst) <= 0
			}
			for _, at := range []struct {
				after time.Duration
				want  bool
			}{{out.RetryAfter, possible}, {out.RetryAfter - 1, false}} {
				fits := true
				for i, n := range reference {
					then := *n
					then.level = new(big.Rat).Set(n.level)
					then.flow(now + int64(at.after))
					fits = fits && then.has(cost)
					_ = i
				}
				if fits != at.want && possible {
					t.Fatalf("round %d, step %d: after %v it is allowed: %v, want %v", round, step, at.after, fits, at.want)
				}
			}
		}
	}
}

func TestRemainingAndResetTellOfTheNearestLimit(t *testing.T) {
	k := NewKeys(0)
	c := counterOf(1, localAmount(10, time.Second, 10), localAmount(3, time.Minute, 3))
	var out Outcome
	if !k.take(0, c, keyOf(1, ""), 1, 1, &out) || out.Remaining != 2 || out.Limit != 3 || out.Window != time.Minute || out.Reset != 20*time.Second {
		t.Errorf("after one request %+v", out)
	}
	k.take(0, c, keyOf(1, ""), 2, 2, &out)
	if k.take(0, c, keyOf(1, ""), 1, 1, &out) || out.Remaining != 0 || out.RetryAfter != 20*time.Second {
		t.Errorf("after three %+v", out)
	}
	if !k.take(int64(20*time.Second), c, keyOf(1, ""), 1, 1, &out) {
		t.Errorf("after the wait %+v", out)
	}
}

func TestARefusedRequestTakesNothingOfAnyLimit(t *testing.T) {
	k := NewKeys(0)
	c := counterOf(1, localAmount(100, time.Second, 100), localAmount(1, time.Minute, 1))
	var out Outcome
	k.take(0, c, keyOf(1, ""), 1, 1, &out)
	for range 500 {
		k.take(0, c, keyOf(1, ""), 1, 1, &out)
	}
	e := k.shards[0].byKey
	_ = e
	for i := range k.shards {
		for _, e := range k.shards[i].ring {
			if left := (e.rule.amounts[0].capacity - e.cells[0].debt) / e.rule.amounts[0].unit; left != 99 {
				t.Errorf("%d of the first limit are left, want 99", left)
			}
		}
	}
}

func TestWhatIsGivenBackCanBeTakenAgain(t *testing.T) {
	k := NewKeys(0)
	c := counterOf(1, localAmount(2, time.Hour, 2))
	var out Outcome
	for range 10 {
		if !k.take(0, c, keyOf(1, "a"), 2, 2, &out) {
			t.Fatal("refused")
		}
		k.give(c, keyOf(1, "a"), 2)
	}
	// Of a key that made place in between, and came again, nothing was admitted yet.
	k.take(0, c, keyOf(1, "b"), 3, 3, &out)
	k.give(c, keyOf(1, "b"), 2)
	if e := k.shardOf(string(keyOf(1, "b"))).byKey[string(keyOf(1, "b"))]; e.admitted != 0 {
		t.Errorf("%d were admitted", e.admitted)
	}
}

func TestCostsOfResponsesMayOverdraw(t *testing.T) {
	k := NewKeys(0)
	c := counterOf(1, localAmount(10, time.Second, 10))
	var out Outcome
	if !k.take(0, c, keyOf(1, "a"), 1, 0, &out) || out.Remaining != 10 {
		t.Fatalf("a look takes nothing: %+v", out)
	}
	k.charge(0, c, keyOf(1, "a"), 25)
	if k.take(int64(time.Second), c, keyOf(1, "a"), 1, 0, &out) || out.RetryAfter != 600*time.Millisecond {
		t.Errorf("%+v, want a wait of 0.6s", out)
	}
	k.charge(0, c, keyOf(1, "b"), 1<<60)
	if k.take(0, c, keyOf(1, "b"), 1, 0, &out); out.RetryAfter > maxOverdraft*time.Second {
		t.Errorf("one answer shuts out for %v", out.RetryAfter)
	}
}

// TestAKeyThatMadePlaceFindsItsBucketNoFuller takes far more keys than there is room
// for, and never allows what a set without bounds refuses.
func TestAKeyThatMadePlaceFindsItsBucketNoFuller(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	k := NewKeys(256)
	c := counterOf(1, localAmount(5, time.Second, 5), localAmount(40, time.Minute, 40))
	type pair [2]*naive
	reference := map[int]pair{}
	now, refusedWrongly, allowed := int64(0), 0, 0
	for range 200_000 {
		now += rng.Int64N(int64(2 * time.Millisecond))
		id := rng.IntN(8) // hot
		if rng.IntN(3) > 0 {
			id = 8 + rng.IntN(5000)
		}
		p, ok := reference[id]
		if !ok {
			p = pair{newNaive(5, time.Second, 5), newNaive(40, time.Minute, 40)}
			p[0].last, p[1].last = now, now
			reference[id] = p
		}
		p[0].flow(now)
		p[1].flow(now)
		want := p[0].has(1) && p[1].has(1)
		var out Outcome
		got := k.take(now, c, keyOf(1, fmt.Sprint(id)), 1, 1, &out)
		if got && !want {
			t.Fatalf("key %d is allowed at %v what its limit refuses", id, time.Duration(now))
		}
		if got {
			p[0].take(1)
			p[1].take(1)
			allowed++
		} else if want {
			refusedWrongly++
		}
	}
	if n := k.Len(); n > 256 {
		t.Errorf("%d keys, want at most 256", n)
	}
	t.Logf("%d allowed, %d refused for want of memory", allowed, refusedWrongly)
}

func TestKeysThatAreFullAgainMakePlaceFirst(t *testing.T) {
	k := NewKeys(64)
	c := counterOf(1, localAmount(1, time.Second, 1))
	var out Outcome
	for i := range 10_000 {
		now := int64(i) * int64(2*time.Second)
		if !k.take(now, c, keyOf(1, fmt.Sprint(i)), 1, 1, &out) {
			t.Fatalf("key %d is refused", i)
		}
	}
	for i := range k.shards {
		if k.shards[i].spilt > 0 {
			t.Errorf("shard %d took out %d busy keys, though all were idle", i, k.shards[i].spilt)
		}
	}
	if k.forget(c); k.Len() != 0 {
		t.Errorf("%d keys are left of a rule that is gone", k.Len())
	}
}

func TestManyAtOnceTakeNoMoreThanThereIs(t *testing.T) {
	k := NewKeys(0)
	c := counterOf(1, localAmount(1000, time.Hour, 1000), localAmount(700, time.Hour, 700))
	var allowed atomic.Int64
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			var out Outcome
			for range 500 {
				if k.take(0, c, keyOf(1, "hot"), 1, 1, &out) {
					allowed.Add(1)
				}
			}
		})
	}
	group.Wait()
	if allowed.Load() != 700 {
		t.Errorf("%d are allowed, want 700", allowed.Load())
	}
}

func FuzzAmounts(f *testing.F) {
	f.Add(uint64(10), int64(time.Second), uint64(10), uint64(1), uint64(5), int64(77))
	f.Add(uint64(1_000_000_000), int64(24*time.Hour), uint64(1_000_000_000), uint64(1_000_000_000), uint64(0), int64(1)<<60)
	f.Fuzz(func(t *testing.T, requests uint64, per int64, burst, cost, shareIn uint64, after int64) {
		requests, burst, cost = requests%maxCost+1, burst%maxCost+1, cost%maxCost+1
		if per < 0 {
			per = -(per + 1)
		}
		if after < 0 {
			after = -(after + 1)
		}
		d := time.Duration(per%int64(24*time.Hour)) + time.Millisecond
		for _, a := range []amount{localAmount(requests, d, burst), newAmount(requests, d, burst, time.Microsecond, maxRemoteUnits)} {
			if a.capacity/a.unit != burst || a.refill == 0 || a.unit == 0 {
				t.Fatalf("%d per %v, burst %d: %+v", requests, d, burst, a)
			}
			share := uint32(shareIn%fullShare) + 1
			need, ok := a.need(cost)
			if ok != (cost <= burst) {
				t.Fatalf("cost %d of %d fits: %v", cost, burst, ok)
			}
			if !ok {
				continue
			}
			c := cell{last: 0, debt: need}
			left := a.debt(c, a.at(after), share)
			if left > need {
				t.Fatalf("debt grew from %d to %d", need, left)
			}
			wait := a.wait(need, share)
			if at := a.at(int64(wait)); wait < 1<<61 && a.debt(c, at+1, share) != 0 && share == fullShare {
				t.Fatalf("after %v, %d of %d are still taken", wait, a.debt(c, at+1, share), need)
			}
			if got := a.cutTo(need, fullShare, share); scaled(a.capacity, share) > got && scaled(a.capacity, share)-got > a.capacity-need {
				t.Fatalf("a smaller share has more left")
			}
		}
	})
}

func BenchmarkTakeHotKey(b *testing.B) {
	k, c := NewKeys(0), counterOf(1, localAmount(1_000_000_000, time.Second, 1_000_000_000))
	key := keyOf(1, "spiffe://cluster.local/ns/shop/sa/web")
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		var out Outcome
		now := int64(0)
		for pb.Next() {
			now += 100
			k.take(now, c, key, 1, 1, &out)
		}
	})
}

func BenchmarkTakeManyKeys(b *testing.B) {
	k, c := NewKeys(0), counterOf(1, localAmount(1000, time.Second, 1000))
	keys := make([][]byte, 90_000)
	for i := range keys {
		keys[i] = keyOf(1, fmt.Sprintf("spiffe://cluster.local/ns/shop/sa/client-%d", i))
		var out Outcome
		k.take(0, c, keys[i], 1, 1, &out)
	}
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		var out Outcome
		i := rand.IntN(len(keys))
		now := int64(0)
		for pb.Next() {
			now += 100
			i = (i + 7919) % len(keys)
			k.take(now, c, keys[i], 1, 1, &out)
		}
	})
}

func FuzzReplies(f *testing.F) {
	for _, s := range []string{"*3\r\n:1\r\n:22\r\n:-1\r\n", "-NOSCRIPT no\r\n", "+OK\r\n", "$3\r\nabc\r\n", "$-1\r\n", "*-1\r\n", "*1\r\n*1\r\n*1\r\n:1\r\n", "$99999\r\n", ":x\r\n", "\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r := bufio.NewReaderSize(bytes.NewReader(data), 64)
		got, err := readReply(r)
		if err != nil {
			return
		}
		if len(got.list) > maxReplyValues || len(got.text) > maxReplyBytes+maxLineBytes {
			t.Fatalf("%d values, %d bytes", len(got.list), len(got.text))
		}
		// What was read needs all of it: one byte less is no answer.
		used := len(data) - r.Buffered()
		if _, err := readReply(bufio.NewReaderSize(bytes.NewReader(data[:max(used-1, 0)]), 64)); err == nil && r.Buffered() == 0 {
			t.Fatalf("%q is an answer without its last byte", data[:used])
		}
	})
}
