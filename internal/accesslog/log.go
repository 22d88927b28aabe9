package accesslog

import (
	"io"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// Config configures a Log.
type Config struct {
	// Output receives whole lines, up to 64 in one Write. Required.
	Output io.Writer
	// JSON writes objects instead of text.
	JSON bool
	// Logger decides which levels are written: those that its child "access"
	// has enabled. Problems of the log itself go to it. Nil writes info and above.
	Logger *zap.Logger
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// Log writes access lines. It is safe for concurrent use. The zero Log is not
// usable; make one with New.
type Log struct {
	cfg    Config
	logger *zap.Logger
	out    *Writer
}

// New starts a Log.
func New(cfg Config) *Log {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	l := &Log{cfg: cfg, out: NewWriter(cfg)}
	if cfg.Logger != nil {
		l.logger = cfg.Logger.Named("access")
	}
	return l
}

// Connection logs a connection that has ended. It does not block.
func (l *Log) Connection(e Entry) {
	level := zapcore.InfoLevel
	if e.Err != nil {
		level = zapcore.ErrorLevel
	}
	l.log(&e, level, "connection complete", withTotals)
}

// Opened logs a connection that has been accepted. It does not block.
func (l *Log) Opened(e Entry) { l.log(&e, zapcore.DebugLevel, "connection opened", withPeers) }

// Refused logs a connection that ended before its peers were known: only
// addresses, direction and error are written. It does not block.
func (l *Log) Refused(e Entry) { l.log(&e, zapcore.WarnLevel, "connection failed", addressesOnly) }

// Lost returns how many lines were dropped because the queue was full.
func (l *Log) Lost() uint64 { return l.out.Lost() }

// Close writes the queued lines and stops. Lines logged afterwards are dropped.
// It blocks as long as Output does. Calling it again does nothing.
func (l *Log) Close() error { return l.out.Close() }

func (l *Log) enabled(level zapcore.Level) bool {
	if l.logger == nil {
		return level >= zapcore.InfoLevel
	}
	return l.logger.Core().Enabled(level) && l.logger.Check(level, "") != nil
}

func (l *Log) log(e *Entry, level zapcore.Level, message string, p parts) {
	if !l.enabled(level) {
		return
	}
	buf := l.out.Buffer()
	out := Line{JSON: l.cfg.JSON, Buf: *buf}
	out.Begin(l.cfg.Now(), level.String(), message)
	e.fields(&out, p)
	out.End()
	*buf = out.Buf
	l.out.Write(buf)
}
