package http2_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	grpctest "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/tulle-mesh/tulle/waypoint/message"
)

// relay passes exchanges on to a server, both ways at once, as a proxy does.
func relay(client message.Client) message.Handler {
	return func(ctx context.Context, x message.Exchange) {
		q, err := client.Open(ctx, x.Request(), x.Body() == message.NoBody)
		if err != nil {
			_ = x.Respond(&message.Response{Status: 503}, true)
			return
		}
		var sending sync.WaitGroup
		defer sending.Wait()
		defer func() { _ = q.Close() }()
		sending.Go(func() {
			if err := pass(q, x.Body()); err == nil {
				_ = q.CloseWrite(x.Body().Trailer())
			}
		})
		p, err := q.Response(ctx)
		if err != nil {
			x.Abort(err)
			return
		}
		if err := x.Respond(p, q.Body() == message.NoBody); err != nil {
			return
		}
		if err := pass(x, q.Body()); err != nil {
			x.Abort(err)
			return
		}
		_ = x.Close(q.Body().Trailer())
	}
}

// pass copies content and never keeps any back.
func pass(to interface {
	io.Writer
	Flush() error
}, from message.Body) error {
	buf := make([]byte, 16<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			if _, werr := to.Write(buf[:n]); werr != nil {
				return werr
			}
		}
		if err == io.EOF {
			return nil
		}
		if err == nil {
			err = to.Flush()
		}
		if err != nil {
			return err
		}
	}
}

// testServer is gRPC's own service for tests of interoperability.
type testServer struct {
	grpctest.UnimplementedTestServiceServer
	cancelled chan bool
}

func (testServer) UnaryCall(ctx context.Context, r *grpctest.SimpleRequest) (*grpctest.SimpleResponse, error) {
	if md, ok := metadata.FromIncomingContext(ctx); ok {
		_ = grpc.SetHeader(ctx, metadata.Pairs("x-initial", fmt.Sprint(md["x-initial"])))
		_ = grpc.SetTrailer(ctx, metadata.Pairs("x-trailing-bin", "\x00\xff"))
	}
	if s := r.ResponseStatus; s != nil {
		return nil, status.Error(codes.Code(s.Code), s.Message)
	}
	return &grpctest.SimpleResponse{Payload: &grpctest.Payload{Body: make([]byte, r.ResponseSize)}}, nil
}

func (s testServer) FullDuplexCall(stream grpctest.TestService_FullDuplexCallServer) error {
	for {
		r, err := stream.Recv()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			if stream.Context().Err() != nil {
				s.cancelled <- true
			}
			return err
		}
		for _, p := range r.ResponseParameters {
			if err := stream.Send(&grpctest.StreamingOutputCallResponse{Payload: &grpctest.Payload{Body: make([]byte, p.Size)}}); err != nil {
				return err
			}
		}
	}
}

func (testServer) StreamingInputCall(stream grpctest.TestService_StreamingInputCallServer) error {
	sum := 0
	for {
		r, err := stream.Recv()
		if err == io.EOF {
			return stream.SendAndClose(&grpctest.StreamingInputCallResponse{AggregatedPayloadSize: int32(sum)})
		}
		if err != nil {
			return err
		}
		sum += len(r.Payload.Body)
	}
}

// TestGRPCThroughBothRoles has our server and our client between gRPC's own.
func TestGRPCThroughBothRoles(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cancelled := queue[bool]()
	backend := grpc.NewServer()
	grpctest.RegisterTestServiceServer(backend, testServer{cancelled: cancelled})
	var serving sync.WaitGroup
	serving.Go(func() { _ = backend.Serve(l) })
	t.Cleanup(func() { backend.Stop(); serving.Wait() })
	addr := listen(t, handled(relay(dialClient(t, l.Addr().String()))))
	cc, err := grpc.NewClient("passthrough:///"+addr.String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cc.Close() }()
	client := grpctest.NewTestServiceClient(cc)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()

	t.Run("unary", func(t *testing.T) {
		var header, trailer metadata.MD
		p, err := client.UnaryCall(metadata.AppendToOutgoingContext(ctx, "x-initial", "here"), &grpctest.SimpleRequest{
			ResponseSize: 314159, Payload: &grpctest.Payload{Body: bytes.Repeat([]byte("x"), 271828)},
		}, grpc.Header(&header), grpc.Trailer(&trailer))
		if err != nil || len(p.Payload.Body) != 314159 {
			t.Fatalf("%v", err)
		}
		if got := header.Get("x-initial"); len(got) != 1 || got[0] != "[here]" {
			t.Errorf("header %v", header)
		}
		if got := trailer.Get("x-trailing-bin"); len(got) != 1 || got[0] != "\x00\xff" {
			t.Errorf("trailer %v", trailer)
		}
	})
	t.Run("status", func(t *testing.T) {
		const text = "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n"
		_, err := client.UnaryCall(ctx, &grpctest.SimpleRequest{ResponseStatus: &grpctest.EchoStatus{Code: 2, Message: text}})
		if s := status.Convert(err); s.Code() != codes.Unknown || s.Message() != text {
			t.Errorf("%v", err)
		}
		if _, err := client.UnimplementedCall(ctx, &grpctest.Empty{}); status.Code(err) != codes.Unimplemented {
			t.Errorf("%v", err)
		}
	})
	t.Run("ping pong", func(t *testing.T) {
		stream, err := client.FullDuplexCall(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for i, size := range []int{31415, 9, 2653, 58979, 1} {
			_ = stream.Send(&grpctest.StreamingOutputCallRequest{
				ResponseParameters: []*grpctest.ResponseParameters{{Size: int32(size)}},
				Payload:            &grpctest.Payload{Body: make([]byte, 100*i)},
			})
			if p, err := stream.Recv(); err != nil || len(p.Payload.Body) != size {
				t.Fatalf("%v", err)
			}
		}
		_ = stream.CloseSend()
		if _, err := stream.Recv(); err != io.EOF {
			t.Errorf("the end is %v", err)
		}
	})
	t.Run("client streaming", func(t *testing.T) {
		stream, err := client.StreamingInputCall(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for range 100 {
			_ = stream.Send(&grpctest.StreamingInputCallRequest{Payload: &grpctest.Payload{Body: make([]byte, 12345)}})
		}
		if p, err := stream.CloseAndRecv(); err != nil || p.AggregatedPayloadSize != 1234500 {
			t.Errorf("%v, %v", p, err)
		}
	})
	t.Run("cancel", func(t *testing.T) {
		ctx, cancel := context.WithCancel(ctx)
		stream, err := client.FullDuplexCall(ctx)
		if err != nil {
			t.Fatal(err)
		}
		_ = stream.Send(&grpctest.StreamingOutputCallRequest{ResponseParameters: []*grpctest.ResponseParameters{{Size: 1}}})
		if _, err := stream.Recv(); err != nil {
			t.Fatal(err)
		}
		cancel()
		if _, err := stream.Recv(); status.Code(err) != codes.Canceled {
			t.Errorf("%v", err)
		}
		<-cancelled // the server heard of it
	})
	t.Run("many", func(t *testing.T) {
		var wg sync.WaitGroup
		for range 200 {
			wg.Go(func() {
				if _, err := client.UnaryCall(ctx, &grpctest.SimpleRequest{ResponseSize: 100}); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	})
}
