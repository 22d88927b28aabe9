package control_test

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tulle-mesh/tulle/meshctl/local/control"
)

func pair(t *testing.T) (a, b *net.UnixConn) {
	t.Helper()
	addr := &net.UnixAddr{Name: filepath.Join(t.TempDir(), "s"), Net: "unixpacket"}
	ln, err := net.ListenUnix("unixpacket", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	a, err = net.DialUnix("unixpacket", nil, addr)
	if err != nil {
		t.Fatal(err)
	}
	b, err = ln.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

func TestFilesComeWithTheirMessage(t *testing.T) {
	a, b := pair(t)
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	if err := control.Send(a, control.Exec{Pod: "web", Argv: []string{"x"}}, write); err != nil {
		t.Fatal(err)
	}
	write.Close()
	var got control.Exec
	files, err := control.Receive(b, &got, 1)
	if err != nil || got.Pod != "web" || len(files) != 1 {
		t.Fatalf("got %+v, %d files, %v", got, len(files), err)
	}
	files[0].WriteString("through")
	files[0].Close()
	if data, _ := io.ReadAll(read); string(data) != "through" {
		t.Errorf("read %q", data)
	}
}

func TestMoreFilesThanExpectedAreRefusedAndClosed(t *testing.T) {
	a, b := pair(t)
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	if err := control.Send(a, control.Exec{}, write, write, write, write); err != nil {
		t.Fatal(err)
	}
	write.Close()
	if _, err := control.Receive(b, &control.Exec{}, 1); err == nil {
		t.Error("no error")
	}
	if _, err := io.ReadAll(read); err != nil { // ends: nobody holds the other end
		t.Error(err)
	}
}

func TestAMessageThatDoesNotFitIsRefusedBeforeItIsSent(t *testing.T) {
	a, _ := pair(t)
	err := control.Send(a, control.Exec{Argv: []string{strings.Repeat("x", 200<<10)}})
	if !errors.Is(err, control.ErrMessageSize) {
		t.Errorf("error %v, want ErrMessageSize", err)
	}
}

func TestTheEndOfTheConversationIsAnError(t *testing.T) {
	a, b := pair(t)
	a.Close()
	if _, err := control.Receive(b, &control.ExecMessage{}, 0); err == nil {
		t.Error("no error")
	}
}

func FuzzReceive(f *testing.F) {
	f.Add([]byte(`{"argv":["x"]}`))
	f.Add([]byte(`{"signal":`))
	f.Fuzz(func(t *testing.T, data []byte) {
		a, b := pair(t)
		if len(data) > 64<<10 {
			return
		}
		if _, err := a.Write(data); err != nil {
			t.Fatal(err)
		}
		var m control.Exec
		control.Receive(b, &m, 3)
	})
}
