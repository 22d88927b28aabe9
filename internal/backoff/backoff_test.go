package backoff_test

import (
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/internal/backoff"
)

func TestNextDoublesUpToTheMaximumAndStaysWithinHalfAndWholeOfTheStep(t *testing.T) {
	b := backoff.New(10*time.Millisecond, 80*time.Millisecond)
	for range 2 {
		for i, step := range []time.Duration{10, 20, 40, 80, 80, 80} {
			step *= time.Millisecond
			if d := b.Next(); d < step/2 || d > step {
				t.Fatalf("delay %d = %v, want between %v and %v", i, d, step/2, step)
			}
		}
		b.Reset()
	}
}

func TestNewRefusesAnInvertedRange(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Fatal("New(2s, 1s) did not panic")
		}
	}()
	backoff.New(2*time.Second, time.Second)
}
