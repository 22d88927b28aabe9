package logging

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// Config tells how to log. The zero value logs text at info to standard error.
type Config struct {
	// Format is "text" (the default) or "json".
	Format string
	// Level is a list as Levels.Set takes it; empty is "info".
	Level string
	// Output takes one Write an entry; nil is standard error.
	Output io.Writer
}

// New returns a logger and the levels that govern it and all loggers derived
// from it. Its errors name the setting that is wrong.
func New(cfg Config) (*zap.Logger, *Levels, error) {
	if cfg.Level == "" {
		cfg.Level = "info"
	}
	levels, err := newLevels(cfg.Level)
	if err != nil {
		return nil, nil, err
	}
	out := cfg.Output
	if out == nil {
		out = os.Stderr
	}
	c := &core{levels: levels, out: &output{w: out}}
	switch cfg.Format {
	case "", "text":
	case "json":
		ec := zapcore.EncoderConfig{
			TimeKey: "time", LevelKey: "level", NameKey: "target", MessageKey: "message",
			EncodeTime: zapcore.RFC3339NanoTimeEncoder, EncodeLevel: zapcore.LowercaseLevelEncoder,
			EncodeDuration: zapcore.StringDurationEncoder, EncodeName: zapcore.FullNameEncoder,
		}
		c.json = zapcore.NewJSONEncoder(ec)
	default:
		return nil, nil, fmt.Errorf("log format %q: want text or json", cfg.Format)
	}
	return zap.New(c), levels, nil
}

// output serialises whole lines of one writer.
type output struct {
	mu sync.Mutex
	w  io.Writer
}

func (o *output) write(line []byte) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	_, err := o.w.Write(line)
	return err
}

// core is the zapcore.Core behind all loggers; levels are decided by the
// logger's name, which zap's own cores do not look at.
type core struct {
	levels *Levels
	out    *output
	json   zapcore.Encoder // nil for text
	fields []zapcore.Field // those of With, for text
}

func (c *core) Enabled(level zapcore.Level) bool { return level >= c.levels.current.Load().lowest }

func (c *core) With(fields []zapcore.Field) zapcore.Core {
	d := *c
	if c.json != nil {
		d.json = c.json.Clone()
		for _, f := range fields {
			f.AddTo(d.json)
		}
		return &d
	}
	d.fields = append(c.fields[:len(c.fields):len(c.fields)], fields...)
	return &d
}

func (c *core) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.levels.current.Load().enabled(e.LoggerName, e.Level) {
		return ce.AddCore(e, c)
	}
	return ce
}

func (c *core) Write(e zapcore.Entry, fields []zapcore.Field) error {
	e.Time = e.Time.UTC()
	if c.json != nil {
		buf, err := c.json.EncodeEntry(e, fields)
		if err != nil {
			return err
		}
		defer buf.Free()
		return c.out.write(buf.Bytes())
	}
	line := e.Time.AppendFormat(make([]byte, 0, 256), time.RFC3339Nano)
	line = append(line, '\t')
	line = append(line, e.Level.String()...)
	line = append(line, '\t')
	line = append(line, e.LoggerName...)
	line = append(line, '\t')
	line = append(line, oneLine(e.Message)...)
	sep := byte('\t')
	for _, set := range [][]zapcore.Field{c.fields, fields} {
		for _, f := range set {
			line = appendField(line, sep, f)
			sep = ' '
		}
	}
	return c.out.write(append(line, '\n'))
}

func (c *core) Sync() error { return nil }

func appendField(line []byte, sep byte, f zapcore.Field) []byte {
	enc := zapcore.NewMapObjectEncoder()
	f.AddTo(enc)
	value, ok := enc.Fields[f.Key]
	if !ok { // a skipped field, such as zap.Error(nil)
		return line
	}
	line = append(line, sep)
	line = append(line, f.Key...)
	line = append(line, '=')
	switch v := value.(type) {
	case string:
		return appendText(line, v)
	case time.Duration:
		return append(line, v.String()...)
	default:
		return appendText(line, fmt.Sprint(v))
	}
}

// appendText quotes what would break the line or hide where the value ends.
func appendText(line []byte, s string) []byte {
	if s == "" || strings.ContainsFunc(s, func(r rune) bool {
		return r == ' ' || r == '"' || r == '=' || !unicode.IsPrint(r)
	}) {
		return strconv.AppendQuote(line, s)
	}
	return append(line, s...)
}

// oneLine keeps a message from forging further lines.
func oneLine(s string) string {
	if strings.ContainsFunc(s, unicode.IsControl) {
		q := strconv.Quote(s)
		return q[1 : len(q)-1]
	}
	return s
}
