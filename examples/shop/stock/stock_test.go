package stock_test

import (
	"context"
	"errors"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/examples/shop/stock"
)

func open(t *testing.T) *stock.Client {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	var s stock.Store
	s.Put("pear", 2)
	s.Put("apple", 40)
	go s.Serve(ln, t.Logf)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	c, err := stock.Dial(ctx, ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestWhatIsTakenIsGone(t *testing.T) {
	c := open(t)
	if left, err := c.Take("apple", 3, "a pie\nTAKE apple 9 for nothing"); err != nil || left != 37 {
		t.Fatalf("take: %d, %v", left, err)
	}
	items, err := c.List()
	if want := []string{"apple 37", "pear 2"}; err != nil || !slices.Equal(items, want) {
		t.Fatalf("list: %v, %v; want %v", items, err, want)
	}
}

func TestMoreThanThereIsIsRefused(t *testing.T) {
	c := open(t)
	for _, bad := range []struct {
		item string
		n    int
	}{{"pear", 3}, {"plum", 1}, {"pear", 0}, {"pear", -1}} {
		if _, err := c.Take(bad.item, bad.n, "x"); !errors.Is(err, stock.ErrRefused) {
			t.Errorf("take %d %s: %v, want ErrRefused", bad.n, bad.item, err)
		}
	}
}
