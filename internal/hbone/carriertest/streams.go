package carriertest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"

	"github.com/tulle-mesh/tulle/internal/hbone"
)

func testEcho(t *testing.T, connect Connect) {
	pair := connect(t, echo(t))
	s := open(t, pair.Client)
	defer s.Close()
	for _, size := range []int{1, 1 << 10, 100 << 10} {
		sent := bytes.Repeat([]byte{byte(size)}, size)
		got := make([]byte, size)
		within(t, "echo", func() {
			go func() { _, _ = s.Write(sent) }()
			if _, err := io.ReadFull(s, got); err != nil {
				t.Errorf("read: %v", err)
			}
		})
		if !bytes.Equal(got, sent) {
			t.Errorf("%d octets came back changed", size)
		}
	}
}

func testHeadersArrive(t *testing.T, connect Connect) {
	want := hbone.Request{
		Authority: "[fd00::7]:443", Baggage: "k8s.namespace.name=shop,service.name=web",
		Forwarded: `for="10.0.0.9:1234";host=web.shop.svc`, Traceparent: "00-0123456789abcdef0123456789abcdef-0123456789abcdef-00",
		ForwardedNetwork: "east",
	}
	got := make(chan hbone.ServerRequest, 1)
	pair := connect(t, func(_ context.Context, r *hbone.ServerRequest) {
		got <- *r
		if s, err := r.Accept(hbone.Response{Status: 200, Baggage: "service.name=api"}); err == nil {
			_ = s.Close()
		}
	})
	s, response, err := pair.Client.Open(limited(t), want)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if response != (hbone.Response{Status: 200, Baggage: "service.name=api"}) {
		t.Errorf("response = %+v", response)
	}
	r := await(t, "request", got)
	if r.Request != want || r.Method != "CONNECT" {
		t.Errorf("server saw %s %+v, want %+v", r.Method, r.Request, want)
	}
}

func testRefuse(t *testing.T, connect Connect) {
	status := make(chan int, 1)
	pair := connect(t, func(_ context.Context, r *hbone.ServerRequest) { _ = r.Refuse(<-status) })
	for _, code := range []int{400, 401, 503} {
		status <- code
		_, _, err := pair.Client.Open(limited(t), request)
		var se *hbone.StatusError
		if !errors.As(err, &se) || se.Status != code {
			t.Errorf("Open: %v, want status %d", err, code)
		}
	}
	if n := pair.Client.Streams(); n != 0 {
		t.Errorf("%d streams after refusals", n)
	}
	if !pair.Client.Usable() {
		t.Error("tunnel is not usable after refusals")
	}
}

func testManyStreams(t *testing.T, connect Connect) {
	pair := connect(t, echo(t))
	const streams = 90
	var wg sync.WaitGroup
	for i := range streams {
		wg.Go(func() {
			s, _, err := pair.Client.Open(limited(t), request)
			if err != nil {
				t.Errorf("Open: %v", err)
				return
			}
			defer s.Close()
			sent := []byte(fmt.Sprintf("hello from %d", i))
			if _, err := s.Write(sent); err != nil {
				t.Errorf("write: %v", err)
			}
			_ = s.CloseWrite()
			if got, err := io.ReadAll(s); err != nil || !bytes.Equal(got, sent) {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
	within(t, "all streams", wg.Wait)
}

func testHalfCloseByClient(t *testing.T, connect Connect) {
	pair := connect(t, func(_ context.Context, r *hbone.ServerRequest) {
		s := accept(t, r)
		if s == nil {
			return
		}
		defer s.Close()
		question, err := io.ReadAll(s)
		if err != nil {
			t.Errorf("server read: %v", err)
		}
		_, _ = s.Write(append([]byte("answer to "), question...))
		_ = s.CloseWrite()
	})
	s := open(t, pair.Client)
	defer s.Close()
	_, _ = s.Write([]byte("question"))
	if err := s.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	within(t, "answer", func() {
		if got, err := io.ReadAll(s); err != nil || string(got) != "answer to question" {
			t.Errorf("got %q, %v", got, err)
		}
	})
	if _, err := s.Write([]byte("more")); err == nil {
		t.Error("write after CloseWrite succeeded")
	}
}

func testHalfCloseByServer(t *testing.T, connect Connect) {
	got := make(chan string, 1)
	pair := connect(t, func(_ context.Context, r *hbone.ServerRequest) {
		s := accept(t, r)
		if s == nil {
			return
		}
		defer s.Close()
		_, _ = s.Write([]byte("greeting"))
		_ = s.CloseWrite()
		b, err := io.ReadAll(s)
		if err != nil {
			t.Errorf("server read: %v", err)
		}
		got <- string(b)
	})
	s := open(t, pair.Client)
	defer s.Close()
	within(t, "greeting", func() {
		if b, err := io.ReadAll(s); err != nil || string(b) != "greeting" {
			t.Errorf("got %q, %v", b, err)
		}
	})
	if _, err := s.Write([]byte("late")); err != nil {
		t.Errorf("write after the peer's half-close: %v", err)
	}
	_ = s.CloseWrite()
	if b := await(t, "the rest", got); b != "late" {
		t.Errorf("server got %q", b)
	}
}

func testResetByClient(t *testing.T, connect Connect) {
	failed := make(chan error, 1)
	pair := connect(t, func(_ context.Context, r *hbone.ServerRequest) {
		s := accept(t, r)
		if s == nil {
			return
		}
		defer s.Close()
		_, err := io.Copy(io.Discard, s)
		failed <- err
	})
	s := open(t, pair.Client)
	_, _ = s.Write([]byte("half a"))
	s.Reset(hbone.CodeConnect)
	s.Reset(hbone.CodeConnect)
	wantReset(t, await(t, "reset", failed), hbone.CodeConnect, true)
	_, err := s.Read(make([]byte, 1))
	wantReset(t, err, hbone.CodeConnect, false)
	_, err = s.Write([]byte("x"))
	wantReset(t, err, hbone.CodeConnect, false)
	_ = s.Close()
}

func testResetByServer(t *testing.T, connect Connect) {
	pair := connect(t, func(_ context.Context, r *hbone.ServerRequest) {
		if s := accept(t, r); s != nil {
			_, _ = s.Read(make([]byte, 1))
			s.Reset(hbone.CodeConnect)
			_ = s.Close()
		}
	})
	s := open(t, pair.Client)
	defer s.Close()
	_, _ = s.Write([]byte("x"))
	within(t, "reset", func() {
		_, err := io.Copy(io.Discard, s)
		wantReset(t, err, hbone.CodeConnect, true)
	})
}

func testOpenCancelled(t *testing.T, connect Connect) {
	asked := make(chan struct{}, 1)
	release := make(chan struct{})
	pair := connect(t, func(_ context.Context, r *hbone.ServerRequest) {
		asked <- struct{}{}
		<-release
		_ = r.Refuse(503)
	})
	defer close(release)
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("the application went away")
	go func() { <-asked; cancel(cause) }()
	within(t, "cancel", func() {
		if _, _, err := pair.Client.Open(ctx, request); !errors.Is(err, cause) {
			t.Errorf("Open: %v, want %v", err, cause)
		}
	})
	if n := pair.Client.Streams(); n != 0 {
		t.Errorf("%d streams after a cancelled Open", n)
	}
}

func testSlowReader(t *testing.T, connect Connect) {
	release := make(chan struct{})
	stalled := make(chan struct{}, 1)
	pair := connect(t, func(ctx context.Context, r *hbone.ServerRequest) {
		if r.Authority != request.Authority {
			if s := accept(t, r); s != nil {
				defer s.Close()
				stalled <- struct{}{}
				<-release
			}
			return
		}
		echo(t)(ctx, r)
	})
	slow, _, err := pair.Client.Open(limited(t), hbone.Request{Authority: "10.0.0.7:1"})
	if err != nil {
		t.Fatal(err)
	}
	await(t, "the slow stream", stalled)
	blocked := make(chan struct{})
	go func() {
		defer close(blocked)
		_, _ = slow.Write(make([]byte, 64<<20)) // more than any window
	}()
	for range 3 {
		s := open(t, pair.Client)
		sent := make([]byte, 1<<20)
		within(t, "another stream", func() {
			go func() { _, _ = s.Write(sent); _ = s.CloseWrite() }()
			if got, err := io.ReadAll(s); err != nil || len(got) != len(sent) {
				t.Errorf("got %d octets, %v", len(got), err)
			}
		})
		_ = s.Close()
	}
	close(release)
	await(t, "the end of the slow stream", blocked)
	_ = slow.Close()
}

func testTransfer(t *testing.T, connect Connect) {
	up, down := payload(1), payload(2)
	sum := make(chan [32]byte, 1)
	pair := connect(t, func(_ context.Context, r *hbone.ServerRequest) {
		s := accept(t, r)
		if s == nil {
			return
		}
		defer s.Close()
		var wg sync.WaitGroup
		wg.Go(func() {
			_ = send(s, down)
			_ = s.CloseWrite()
		})
		h := sha256.New()
		_, _ = io.Copy(h, s)
		sum <- [32]byte(h.Sum(nil))
		wg.Wait()
	})
	s := open(t, pair.Client)
	defer s.Close()
	go func() {
		_ = send(s, up)
		_ = s.CloseWrite()
	}()
	within(t, "download", func() {
		h := sha256.New()
		n, err := io.Copy(h, s)
		if err != nil || n != transferBytes || [32]byte(h.Sum(nil)) != sha256.Sum256(down) {
			t.Errorf("download: %d octets, %v, or the checksum differs", n, err)
		}
	})
	if got := await(t, "upload", sum); got != sha256.Sum256(up) {
		t.Error("upload: the checksum differs")
	}
}
