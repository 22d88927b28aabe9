package hbone_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/internal/hbone"
)

// TestAnAnswerComesBeforeTheResetBehindIt has an application that answers and closes
// without reading, as servers do that decline an upload. Its kernel resets the
// connection, and the tunnel's write sees that before anybody has read the answer.
func TestAnAnswerComesBeforeTheResetBehindIt(t *testing.T) {
	answer := bytes.Repeat([]byte("no "), 2000)
	broken := make(chan error, 1)
	server := &hbone.Server{Handler: func(ctx context.Context, r *hbone.ServerRequest) {
		proxy, app := socketPair(t)
		go func() {
			// It has read nothing, so that its close is a reset.
			_, _ = app.Write(answer)
			_ = app.Close()
		}()
		s, err := r.Accept(hbone.Response{Status: 200})
		if err != nil {
			broken <- err
			return
		}
		broken <- s.Join(ctx, proxy, nil)
	}}
	client := tunnelPair(t, tlsConns, server, hbone.ClientConfig{})
	for range 200 {
		s, _, err := client.Open(t.Context(), anyRequest)
		if err != nil {
			t.Fatal(err)
		}
		sent := make(chan struct{})
		go func() {
			defer close(sent)
			for chunk := make([]byte, 64<<10); ; {
				if _, err := s.Write(chunk); err != nil {
					return
				}
			}
		}()
		got, err := io.ReadAll(s)
		if !bytes.Equal(got, answer) {
			t.Errorf("%d of %d octets came: %v", len(got), len(answer), err)
		}
		var reset *hbone.StreamError
		if err != nil && (!errors.As(err, &reset) || reset.Code != hbone.CodeConnect || !reset.Remote) {
			t.Errorf("the end is %v", err)
		}
		_ = s.Close()
		<-sent
		select {
		case <-broken:
		case <-time.After(10 * time.Second):
			t.Fatal("Join does not end")
		}
	}
}
