package accesslog_test

import (
	"strconv"
	"testing"

	"github.com/tulle-mesh/tulle/internal/accesslog"
)

func TestTextsAreQuotedAsGoDoes(t *testing.T) {
	for _, s := range []string{"a", "/some/path?x=~", " ", `a"b`, `a\b`, "a\nb", "a\x7fb", "é", "\xff", "a\x00"} {
		l := accesslog.Line{}
		l.Text("k", s)
		if want := "k=" + strconv.Quote(s); string(l.Buf) != want && string(l.Buf) != " "+want {
			t.Errorf("%q is written as %s", s, l.Buf)
		}
	}
}
