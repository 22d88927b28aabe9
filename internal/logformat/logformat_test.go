package logformat_test

import (
	"strings"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/internal/logformat"
)

// values answers with the command's name and arguments.
type values struct{}

func (values) Start() time.Time { return time.Date(2026, 11, 22, 7, 8, 9, 123456789, time.UTC) }

func (values) Append(dst []byte, c *logformat.Command) ([]byte, bool) {
	switch c.Op {
	case logformat.Req:
		if c.Name == "absent" && c.Alternative == "" {
			return dst, false
		}
		return append(dst, "<"+c.Name+"|"+c.Alternative+">"...), true
	case logformat.ResponseCode:
		return append(dst, "200"...), true
	case logformat.Method:
		return append(dst, "GE\nT"...), true
	case logformat.Own:
		return append(dst, c.Name...), true
	}
	return dst, false
}

func TestFormats(t *testing.T) {
	for format, want := range map[string]string{
		"":                                     "",
		"text":                                 "text",
		"100%% of %RESPONSE_CODE%":             "100% of 200",
		"%REQ(User-Agent)%":                    "<user-agent|>",
		"%REQ(X-ENVOY-ORIGINAL?:PATH)%":        "<x-envoy-original|:path>",
		"%REQ(USER-AGENT):5%":                  "<user",
		"%REQ(ABSENT)%":                        "-",
		"%UPSTREAM_HOST%":                      "-",
		"%METHOD%":                             "GE?T",
		"%START_TIME%":                         "2026-11-22T07:08:09.123Z",
		"%START_TIME(%Y/%m/%dT%H:%M:%S%z %s)%": "2026/11/22T07:08:09+0000 1795331289",
		"%START_TIME(%s.%3f %f %1f)%":          "1795331289.123 123456789 1",
		"%TULLE(POLICY)%,%TULLE(LIMIT)%":       "POLICY,LIMIT",
	} {
		f, err := logformat.Parse(format)
		if err != nil {
			t.Errorf("%q: %v", format, err)
			continue
		}
		if got := string(f.Append(nil, values{})); got != want {
			t.Errorf("%q is %q, want %q", format, got, want)
		}
	}
}

func TestIstiosOwnFormatIsUnderstood(t *testing.T) {
	if _, err := logformat.Parse(logformat.Default); err != nil {
		t.Error(err)
	}
}

func TestWhatIsWrongIsNamed(t *testing.T) {
	for format, want := range map[string]string{
		"%UNHEARD_OF%":                         "UNHEARD_OF",
		"%RESPONSE_CODE":                       "does not end",
		"%REQ(X%":                              "closing",
		"50 % of":                              "begins no command",
		"%REQ()%":                              "names no field",
		"%REQ(a b)%":                           "not a field's name",
		"%REQ(X):0%":                           "not a positive number",
		"%REQ(X):many%":                        "not a positive number",
		"%RESPONSE_CODE(X)%":                   "takes nothing",
		"%START_TIME(%Q)%":                     "unknown",
		"%GRPC_STATUS(LOUD)%":                  "LOUD",
		"%TULLE(WEATHER)%":                     "WEATHER",
		"%DYNAMIC_METADATA(istio.mixer:s)%":    "waypoints have no",
		strings.Repeat("x", 33<<10):            "more than",
		strings.Repeat("%RESPONSE_CODE%", 600): "parts",
		"\xff":                                 "UTF-8",
	} {
		if _, err := logformat.Parse(format); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: %v, want %q", format, err, want)
		}
	}
}

func TestASingleCommandIsKnown(t *testing.T) {
	for format, number := range map[string]bool{"%RESPONSE_CODE%": true, "%PROTOCOL%": false} {
		f, _ := logformat.Parse(format)
		c, ok := f.Single()
		if !ok || c.Number != number {
			t.Errorf("%s: %v %v", format, c, ok)
		}
	}
	f, _ := logformat.Parse("%PROTOCOL% ")
	if _, ok := f.Single(); ok {
		t.Error("text and a command are a single one")
	}
}

func FuzzParse(f *testing.F) {
	f.Add(logformat.Default)
	f.Add("%START_TIME(%Y%3f)%%%:%REQ(a?b):3%")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := logformat.Parse(text)
		if err != nil {
			return
		}
		p.Append(nil, values{})
		// What is written in one line stays in it, but for what the format itself says.
		if !strings.ContainsAny(text, "\n") && strings.Contains(string(p.Append(nil, values{})), "\n") {
			t.Fatalf("%q breaks the line", text)
		}
	})
}
