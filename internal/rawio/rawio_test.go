package rawio_test

import (
	"bytes"
	"syscall"
	"testing"

	"github.com/tulle-mesh/tulle/internal/rawio"
)

// pair returns two connected sockets.
func pair(t testing.TB, flags int) (a, b int) {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC|flags, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = syscall.Close(fds[0])
		_ = syscall.Close(fds[1])
	})
	return fds[0], fds[1]
}

func TestReadReturnsWhatIsThereAndNeverWaits(t *testing.T) {
	a, b := pair(t, syscall.SOCK_NONBLOCK)
	p := make([]byte, 16)
	if n, err := rawio.Read(a, p); n != 0 || err != syscall.EAGAIN {
		t.Errorf("nothing there: %d, %v", n, err)
	}
	if n, err := rawio.Write(b, []byte("hello")); n != 5 || err != nil {
		t.Fatalf("write: %d, %v", n, err)
	}
	if n, err := rawio.Read(a, nil); n != 0 || err != nil {
		t.Errorf("into nothing: %d, %v", n, err)
	}
	if n, err := rawio.Read(a, p); err != nil || string(p[:n]) != "hello" {
		t.Errorf("read %q, %v", p[:n], err)
	}
	if err := syscall.Shutdown(b, syscall.SHUT_WR); err != nil {
		t.Fatal(err)
	}
	if n, err := rawio.Read(a, p); n != 0 || err != nil {
		t.Errorf("at the end: %d, %v", n, err)
	}
}

func TestWriteTakesWhatFits(t *testing.T) {
	a, b := pair(t, syscall.SOCK_NONBLOCK)
	block := bytes.Repeat([]byte("x"), 64<<10)
	sent := 0
	for {
		n, err := rawio.Write(a, block)
		sent += n
		if err == syscall.EAGAIN {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	got := 0
	for {
		n, err := rawio.Read(b, block)
		if err == syscall.EAGAIN {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got += n
	}
	if sent == 0 || got != sent {
		t.Errorf("%d of %d octets came", got, sent)
	}
}

func TestErrorsAreThoseOfTheSystem(t *testing.T) {
	a, b := pair(t, syscall.SOCK_NONBLOCK)
	if err := syscall.Shutdown(a, syscall.SHUT_RDWR); err != nil {
		t.Fatal(err)
	}
	if _, err := rawio.Write(b, []byte("x")); err != syscall.EPIPE {
		t.Errorf("write to who has gone: %v", err)
	}
	if _, err := rawio.Read(-1, make([]byte, 1)); err != syscall.EBADF {
		t.Errorf("read of no descriptor: %v", err)
	}
}

func BenchmarkRoundTrip(b *testing.B) {
	x, y := pair(b, syscall.SOCK_NONBLOCK)
	p := make([]byte, 1<<10)
	calls := map[string]struct {
		read, write func(int, []byte) (int, error)
	}{
		"rawio":   {rawio.Read, rawio.Write},
		"syscall": {syscall.Read, syscall.Write},
	}
	for name, c := range calls {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(p)))
			for b.Loop() {
				if _, err := c.write(x, p); err != nil {
					b.Fatal(err)
				}
				if n, err := c.read(y, p); err != nil || n != len(p) {
					b.Fatal(n, err)
				}
			}
		})
	}
}
