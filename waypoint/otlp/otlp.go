package otlp

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	logspb "go.opentelemetry.io/proto/otlp/logs/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"
)

// Config of an Exporter.
type Config struct {
	// Addr is host:port of the collector.
	Addr string
	// Resource is what sends.
	Resource *resourcepb.Resource
	// Lost counts what was dropped; nil counts nothing.
	Lost *atomic.Uint64
	// Logger gets the first failure of a row; nil nobody.
	Logger *zap.Logger
}

// Scope names what the records are about.
const Scope = "tulle.waypoint"

// The methods of the collector's services. Their requests have the same form as
// TracesData and LogsData, which spares the package with the services' stubs.
const (
	exportSpans = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
	exportLogs  = "/opentelemetry.proto.collector.logs.v1.LogsService/Export"
)

// Spans sends spans. It is safe for concurrent use.
type Spans = Exporter[*tracepb.Span]

// NewSpans starts an Exporter of spans. The error says what is wrong with the address.
func NewSpans(cfg Config) (*Spans, error) {
	return start(cfg, exportSpans, func(batch []*tracepb.Span) proto.Message {
		return &tracepb.TracesData{ResourceSpans: []*tracepb.ResourceSpans{{
			Resource: cfg.Resource, ScopeSpans: []*tracepb.ScopeSpans{{Scope: scope, Spans: batch}},
		}}}
	})
}

// Logs sends log records. It is safe for concurrent use.
type Logs = Exporter[*logspb.LogRecord]

// NewLogs starts an Exporter of log records. The error says what is wrong with the
// address.
func NewLogs(cfg Config) (*Logs, error) {
	return start(cfg, exportLogs, func(batch []*logspb.LogRecord) proto.Message {
		return &logspb.LogsData{ResourceLogs: []*logspb.ResourceLogs{{
			Resource: cfg.Resource, ScopeLogs: []*logspb.ScopeLogs{{Scope: scope, LogRecords: batch}},
		}}}
	})
}

// Exporter sends one kind of records to one collector.
type Exporter[T any] struct {
	cfg    Config
	method string
	encode func([]T) proto.Message
	conn   *grpc.ClientConn
	lost   *atomic.Uint64
	ctx    context.Context
	cancel context.CancelFunc

	// mu guards queue against a send after close: senders hold it shared.
	mu      sync.RWMutex
	closed  bool
	queue   chan T
	done    chan struct{}
	failing bool // of the sender
}

func start[T any](cfg Config, method string, encode func([]T) proto.Message) (*Exporter[T], error) {
	conn, err := grpc.NewClient(cfg.Addr, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswerBytes)))
	if err != nil {
		return nil, fmt.Errorf("collector %q: %w", cfg.Addr, err)
	}
	e := &Exporter[T]{
		cfg: cfg, method: method, encode: encode, conn: conn, lost: cfg.Lost,
		queue: make(chan T, queueItems), done: make(chan struct{}),
	}
	if e.lost == nil {
		e.lost = new(atomic.Uint64)
	}
	e.ctx, e.cancel = context.WithCancel(context.Background())
	go e.run()
	return e, nil
}

// Add queues a record. It does not block.
func (e *Exporter[T]) Add(record T) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	if !e.closed {
		select {
		case e.queue <- record:
			return
		default:
		}
	}
	e.lost.Add(1)
}

// Close sends what is queued, for 3 seconds at most, and ends the Exporter. What is
// added afterwards is lost. Calling it again does nothing.
func (e *Exporter[T]) Close() {
	e.mu.Lock()
	if !e.closed {
		e.closed = true
		close(e.queue)
		time.AfterFunc(closeTimeout, e.cancel)
	}
	e.mu.Unlock()
	<-e.done
	e.cancel()
}

// run sends until the queue is closed and empty.
func (e *Exporter[T]) run() {
	defer close(e.done)
	defer e.conn.Close()
	timer := time.NewTimer(flushAfter)
	defer timer.Stop()
	for first := range e.queue {
		batch := append(make([]T, 0, 16), first)
		timer.Reset(flushAfter)
	more:
		for len(batch) < batchItems {
			select {
			case next, ok := <-e.queue:
				if !ok {
					break more
				}
				batch = append(batch, next)
			case <-timer.C:
				break more
			}
		}
		e.send(batch)
	}
}

// send sends one batch, again where that may help.
func (e *Exporter[T]) send(batch []T) {
	body := e.encode(batch)
	var err error
	for try, pause := 0, firstPause; try < sendTries; try, pause = try+1, 2*pause {
		if try > 0 {
			select {
			case <-time.After(pause):
			case <-e.ctx.Done():
			}
		}
		ctx, cancel := context.WithTimeout(e.ctx, sendTimeout)
		err = e.conn.Invoke(ctx, e.method, body, new(emptypb.Empty))
		cancel()
		if err == nil || !again(err) || e.ctx.Err() != nil {
			break
		}
	}
	if err != nil {
		e.lost.Add(uint64(len(batch)))
		if !e.failing && e.cfg.Logger != nil && !errors.Is(e.ctx.Err(), context.Canceled) {
			e.cfg.Logger.Warn("the collector takes nothing; what is not sent is counted as lost", zap.String("collector", e.cfg.Addr), zap.Error(err))
		}
	}
	e.failing = err != nil
}

// again says which answers a collector gives to be asked again (OTLP, "Failures").
func again(err error) bool {
	switch status.Code(err) {
	case codes.Canceled, codes.DeadlineExceeded, codes.Aborted, codes.OutOfRange, codes.Unavailable, codes.DataLoss:
		return true
	}
	return false
}
