package lease_test

import (
	"context"
	"errors"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	api "github.com/tulle-mesh/tulle/api/lease"
	"github.com/tulle-mesh/tulle/istiod-lite/lease"
)

// brief is a stream that breaks after its first report.
type brief struct {
	grpc.BidiStreamingServer[api.Report, api.Grant]
	account, replica string
	read             bool
}

type accountKey struct{}

func (b *brief) Context() context.Context {
	return context.WithValue(context.Background(), accountKey{}, b.account)
}

func (b *brief) Recv() (*api.Report, error) {
	if b.read {
		return nil, errors.New("the connection broke")
	}
	b.read = true
	return &api.Report{Replica: b.replica}, nil
}

func (b *brief) Send(*api.Grant) error { return nil }

func TestAnAccountHasSomeHundredReplicasAtMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := lease.NewServer(lease.Config{
			Authorize: func(ctx context.Context) (string, error) { return ctx.Value(accountKey{}).(string), nil },
			Permitted: func(string, string) bool { return true },
		})
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()
		ask := func(account, replica string, want codes.Code) {
			t.Helper()
			if err := s.Share(&brief{account: account, replica: replica}); status.Code(err) != want {
				t.Fatalf("%s of %s: %v, want %v", replica, account, err, want)
			}
		}
		const most = 500
		for i := range most {
			ask("shop/waypoint", strconv.Itoa(i), codes.Unavailable)
		}
		ask("shop/waypoint", "another", codes.ResourceExhausted)
		ask("shop/waypoint", "7", codes.Unavailable) // comes again
		ask("shop/waypoint-2", "0", codes.Unavailable)
		time.Sleep(11 * time.Second) // those that left are forgotten
		ask("shop/waypoint", "another", codes.Unavailable)
		cancel()
		<-done
	})
}
