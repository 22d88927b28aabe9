package kube

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// children counts what is registered with a context.
type children struct {
	context.Context
	n int
}

func (c *children) AfterFunc(f func()) (stop func() bool) {
	c.n++
	inner := context.AfterFunc(c.Context, f)
	left := false
	return func() bool {
		if !left {
			left = true
			c.n--
		}
		return inner()
	}
}

func TestAWaitEndsInTimeOrWithItsContextAndLeavesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		outer := &children{Context: ctx}
		began := time.Now()
		<-until{ctx: outer}.After(time.Minute)
		if took := time.Since(began); took != time.Minute {
			t.Errorf("it ended after %v", took)
		}
		synctest.Wait()
		if outer.n != 0 {
			t.Errorf("%d waits stay with the context", outer.n)
		}
		began = time.Now()
		c := until{ctx: outer}.After(time.Hour)
		cancel()
		<-c
		if took := time.Since(began); took != 0 {
			t.Errorf("it ended %v after its context", took)
		}
	})
}
