package accesslog

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

// Writer writes whole lines that others have made, in batches, by a goroutine of its
// own. It is safe for concurrent use; make one with NewWriter.
type Writer struct {
	cfg    Config
	logger *zap.Logger
	lost   atomic.Uint64 // lines dropped since the last report
	total  atomic.Uint64 // lines dropped ever

	// mu guards queue against a send after close: senders hold it shared.
	mu      sync.RWMutex
	closed  bool
	queue   chan *[]byte
	closing chan struct{}
	done    chan struct{}
	buffers sync.Pool
}

// NewWriter starts a Writer. Of the Config, Logger gets problems of the Writer alone.
func NewWriter(cfg Config) *Writer {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	w := &Writer{cfg: cfg, queue: make(chan *[]byte, queueLines), closing: make(chan struct{}), done: make(chan struct{})}
	if cfg.Logger != nil {
		w.logger = cfg.Logger.Named("access")
	}
	w.buffers.New = func() any { b := make([]byte, 0, 512); return &b }
	go w.write()
	return w
}

// Buffer returns an empty buffer for a line, which Write or Release takes back.
func (w *Writer) Buffer() *[]byte {
	buf := w.buffers.Get().(*[]byte)
	*buf = (*buf)[:0]
	return buf
}

// Write queues a line, with the newline at its end, in a buffer of Buffer. It does not
// block: when the queue is full the line is dropped and counted.
func (w *Writer) Write(buf *[]byte) {
	w.mu.RLock()
	defer w.mu.RUnlock()
	if w.closed {
		w.Release(buf)
		return
	}
	select {
	case w.queue <- buf:
	default:
		w.lost.Add(1)
		w.total.Add(1)
		w.Release(buf)
	}
}

// Lost returns how many lines were dropped because the queue was full.
func (w *Writer) Lost() uint64 { return w.total.Load() }

// Close writes the queued lines and stops. Lines written afterwards are dropped. It
// blocks as long as Output does. Calling it again does nothing.
func (w *Writer) Close() error {
	w.mu.Lock()
	if !w.closed {
		w.closed = true
		close(w.closing)
		close(w.queue)
	}
	w.mu.Unlock()
	<-w.done
	return nil
}

// Release takes back a buffer that is not written.
func (w *Writer) Release(buf *[]byte) {
	if cap(*buf) <= keptBytes {
		w.buffers.Put(buf)
	}
}

// write runs until the queue is closed and empty. Lines of one batch are copied
// together: for a file or a pipe that costs less than describing each of them
// to writev, and it is one system call all the same.
func (w *Writer) write() {
	defer close(w.done)
	var batch []byte
	failing := false
	timer := time.NewTimer(gatherTime)
	defer timer.Stop()
	for buf := range w.queue {
		batch = w.take(batch[:0], buf)
		w.gather(timer)
	more:
		for range batchLines - 1 {
			select {
			case next, ok := <-w.queue:
				if !ok {
					break more
				}
				batch = w.take(batch, next)
			default:
				break more
			}
		}
		batch = w.reportLost(batch)
		_, err := w.cfg.Output.Write(batch)
		// A full disk would repeat itself with every batch: say it once.
		if err != nil && !failing && w.logger != nil {
			w.logger.Error("cannot write the access log", zap.Error(err))
		}
		failing = err != nil
		if cap(batch) > batchLines*keptBytes {
			batch = nil
		}
	}
}

// gather waits a moment for others, unless there are many already: a wake-up and a
// system call for each line would cost more than the line.
func (w *Writer) gather(timer *time.Timer) {
	if len(w.queue) >= batchLines-1 {
		return
	}
	timer.Reset(gatherTime)
	select {
	case <-timer.C:
	case <-w.closing:
	}
}

func (w *Writer) take(batch []byte, buf *[]byte) []byte {
	batch = append(batch, *buf...)
	w.Release(buf)
	return batch
}

// reportLost adds a line that tells how many are missing before it.
func (w *Writer) reportLost(batch []byte) []byte {
	n := w.lost.Swap(0)
	if n == 0 {
		return batch
	}
	out := Line{JSON: w.cfg.JSON, Buf: batch}
	out.Begin(w.cfg.Now(), "warn", fmt.Sprintf("%d lines lost: the log was not read fast enough", n))
	out.Number("lost", n)
	out.End()
	return out.Buf
}
