package accesslog_test

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/internal/accesslog"
)

func TestTextsAreQuotedAsGoDoes(t *testing.T) {
	for _, s := range []string{"a", "/some/path?x=~", " ", `a"b`, `a\b`, "a\nb", "a\x7fb", "é", "\xff", "a\x00"} {
		l := accesslog.Line{}
		l.Begin(time.Now(), "info", "what")
		l.Text("k", s)
		if want := "\tk=" + strconv.Quote(s); !strings.HasSuffix(string(l.Buf), want) {
			t.Errorf("%q is written as %q", s, l.Buf)
		}
	}
}
