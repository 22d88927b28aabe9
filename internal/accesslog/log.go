package accesslog

import (
	"fmt"
	"io"
	"sync"
	"sync/atomic"
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
	lost   atomic.Uint64 // lines dropped since the last report
	total  atomic.Uint64 // lines dropped ever

	// mu guards queue against a send after close: senders hold it shared.
	mu      sync.RWMutex
	closed  bool
	queue   chan *[]byte
	done    chan struct{}
	buffers sync.Pool
}

// New starts a Log.
func New(cfg Config) *Log {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	l := &Log{cfg: cfg, queue: make(chan *[]byte, queueLines), done: make(chan struct{})}
	if cfg.Logger != nil {
		l.logger = cfg.Logger.Named("access")
	}
	l.buffers.New = func() any { b := make([]byte, 0, 512); return &b }
	go l.write()
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
func (l *Log) Lost() uint64 { return l.total.Load() }

// Close writes the queued lines and stops. Lines logged afterwards are dropped.
// It blocks as long as Output does. Calling it again does nothing.
func (l *Log) Close() error {
	l.mu.Lock()
	if !l.closed {
		l.closed = true
		close(l.queue)
	}
	l.mu.Unlock()
	<-l.done
	return nil
}

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
	buf := l.buffers.Get().(*[]byte)
	out := line{json: l.cfg.JSON, buf: (*buf)[:0]}
	out.begin(l.cfg.Now(), level.String(), message)
	e.fields(&out, p)
	out.end()
	*buf = out.buf

	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.closed {
		l.release(buf)
		return
	}
	select {
	case l.queue <- buf:
	default:
		l.lost.Add(1)
		l.total.Add(1)
		l.release(buf)
	}
}

func (l *Log) release(buf *[]byte) {
	if cap(*buf) <= keptBytes {
		l.buffers.Put(buf)
	}
}

// write runs until the queue is closed and empty. Lines of one batch are copied
// together: for a file or a pipe that costs less than describing each of them
// to writev, and it is one system call all the same.
func (l *Log) write() {
	defer close(l.done)
	var batch []byte
	failing := false
	for buf := range l.queue {
		batch = l.take(batch[:0], buf)
	more:
		for range batchLines - 1 {
			select {
			case next, ok := <-l.queue:
				if !ok {
					break more
				}
				batch = l.take(batch, next)
			default:
				break more
			}
		}
		batch = l.reportLost(batch)
		_, err := l.cfg.Output.Write(batch)
		// A full disk would repeat itself with every batch: say it once.
		if err != nil && !failing && l.logger != nil {
			l.logger.Error("cannot write the access log", zap.Error(err))
		}
		failing = err != nil
		if cap(batch) > batchLines*keptBytes {
			batch = nil
		}
	}
}

func (l *Log) take(batch []byte, buf *[]byte) []byte {
	batch = append(batch, *buf...)
	l.release(buf)
	return batch
}

// reportLost adds a line that tells how many are missing before it.
func (l *Log) reportLost(batch []byte) []byte {
	n := l.lost.Swap(0)
	if n == 0 {
		return batch
	}
	out := line{json: l.cfg.JSON, buf: batch}
	out.begin(l.cfg.Now(), "warn", fmt.Sprintf("%d lines lost: the log was not read fast enough", n))
	out.number("lost", n)
	out.end()
	return out.buf
}
