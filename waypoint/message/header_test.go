package message_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/waypoint/message"
)

func TestHeader(t *testing.T) {
	h := message.Header{{"a", "1"}, {"b", "2"}, {"a", "3"}, {"c", "4"}, {"a", "5"}}
	if got := h.Get("a"); got != "1" {
		t.Errorf("Get = %q", got)
	}
	if got, ok := h.Lookup("a"); got != "1,3,5" || !ok {
		t.Errorf("Lookup = %q, %v", got, ok)
	}
	if got, ok := h.Lookup("d"); got != "" || ok {
		t.Errorf("Lookup = %q, %v", got, ok)
	}
	var values []string
	for v, next, ok := h.Next("a", 0); ok; v, next, ok = h.Next("a", next) {
		values = append(values, v)
	}
	if !slices.Equal(values, []string{"1", "3", "5"}) {
		t.Errorf("Next: %v", values)
	}
	c := h.Clone()
	h.Set("a", "6")
	if want := (message.Header{{"a", "6"}, {"b", "2"}, {"c", "4"}}); !slices.Equal(h, want) {
		t.Errorf("after Set: %v", h)
	}
	if c.Get("a") != "1" || len(c) != 5 {
		t.Errorf("the copy changed: %v", c)
	}
	h.Set("d", "7")
	h.Del("b")
	h.Del("x")
	if want := (message.Header{{"a", "6"}, {"c", "4"}, {"d", "7"}}); !slices.Equal(h, want) {
		t.Errorf("after Del: %v", h)
	}
}

func TestDelAlikeTakesUnderscoresForDashes(t *testing.T) {
	h := message.Header{{"x-user", "1"}, {"x_user", "2"}, {"xuser", "3"}, {"x-use_", "4"}, {"x-users", "5"}}
	h.DelAlike("x-user")
	if want := (message.Header{{"xuser", "3"}, {"x-use_", "4"}, {"x-users", "5"}}); !slices.Equal(h, want) {
		t.Errorf("%v", h)
	}
	var names []string
	h.Names(func(n string) bool { names = append(names, n); return len(names) < 2 })
	if !slices.Equal(names, []string{"xuser", "x-use_"}) {
		t.Errorf("%v", names)
	}
}

func TestFieldsThatMayBeWritten(t *testing.T) {
	for _, name := range []string{"a", "x-y_z.1", "!#$%&'*+-.^_`|~"} {
		if !message.ValidName(name) {
			t.Errorf("ValidName(%q) = false", name)
		}
	}
	for _, name := range []string{"", "A", "a b", "a:", "a\n", ":a", "é", "a\x00", "(a)", "a,b"} {
		if message.ValidName(name) {
			t.Errorf("ValidName(%q) = true", name)
		}
	}
	for _, value := range []string{"", "a", "a b\tc", "é", "\xff", `"\`} {
		if !message.ValidValue(value) {
			t.Errorf("ValidValue(%q) = false", value)
		}
	}
	for _, value := range []string{" ", "a ", "\ta", "a\r\nb", "\n", "\x00", "a\x1fb", "\x7f"} {
		if message.ValidValue(value) {
			t.Errorf("ValidValue(%q) = true", value)
		}
	}
	if !message.Reserved("transfer-encoding") || message.Reserved("te") || message.Reserved("cookie") {
		t.Error("Reserved")
	}
}

func TestUnsent(t *testing.T) {
	err := fmt.Errorf("open: %w", &message.UnsentError{Err: &message.ResetError{Code: 7, Remote: true}})
	var reset *message.ResetError
	if !message.Unsent(err) || !errors.As(err, &reset) || reset.Code != 7 {
		t.Errorf("%v", err)
	}
	if message.Unsent(reset) {
		t.Error("any reset counts as unsent")
	}
}

func TestDate(t *testing.T) {
	at := time.Date(1994, time.November, 6, 9, 49, 37, 999, time.FixedZone("", 3600))
	for range 2 {
		if got := message.Date(at); got != "Sun, 06 Nov 1994 08:49:37 GMT" {
			t.Errorf("Date = %q", got)
		}
	}
	if got := message.Date(at.Add(time.Second)); got != "Sun, 06 Nov 1994 08:49:38 GMT" {
		t.Errorf("Date = %q", got)
	}
}
