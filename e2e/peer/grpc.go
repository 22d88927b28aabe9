package main

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/status"
)

// maxPayload bounds what a request may ask for, in bytes: gRPC's own limit is 4 MiB.
const maxPayload = 3 << 20

// grpcServer serves gRPC's interoperability service, and tells clients what it has.
func grpcServer() *grpc.Server {
	s := grpc.NewServer()
	testpb.RegisterTestServiceServer(s, testService{})
	reflection.Register(s)
	return s
}

type testService struct {
	testpb.UnimplementedTestServiceServer
}

func (testService) EmptyCall(context.Context, *testpb.Empty) (*testpb.Empty, error) {
	return &testpb.Empty{}, nil
}

// UnaryCall answers with as much as is asked for, or with the status that is.
func (testService) UnaryCall(ctx context.Context, in *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	if err := grpc.SetTrailer(ctx, metadata.Pairs("x-trailer", "there")); err != nil {
		return nil, err
	}
	if err := asked(in.GetResponseStatus()); err != nil {
		return nil, err
	}
	p, err := payload(in.GetResponseSize())
	return &testpb.SimpleResponse{Payload: p}, err
}

func (testService) StreamingOutputCall(in *testpb.StreamingOutputCallRequest, out testpb.TestService_StreamingOutputCallServer) error {
	return send(in, out.Context(), out.Send)
}

func (testService) StreamingInputCall(in testpb.TestService_StreamingInputCallServer) error {
	var size int32
	for {
		m, err := in.Recv()
		if errors.Is(err, io.EOF) {
			return in.SendAndClose(&testpb.StreamingInputCallResponse{AggregatedPayloadSize: size})
		}
		if err != nil {
			return err
		}
		size += int32(len(m.GetPayload().GetBody()))
	}
}

func (testService) FullDuplexCall(s testpb.TestService_FullDuplexCallServer) error {
	for {
		in, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := asked(in.GetResponseStatus()); err != nil {
			return err
		}
		if err := send(in, s.Context(), s.Send); err != nil {
			return err
		}
	}
}

// send sends what a request asks for, and waits before each as it says.
func send(in *testpb.StreamingOutputCallRequest, ctx context.Context, out func(*testpb.StreamingOutputCallResponse) error) error {
	for _, p := range in.GetResponseParameters() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Duration(p.GetIntervalUs()) * time.Microsecond):
		}
		body, err := payload(p.GetSize())
		if err != nil {
			return err
		}
		if err := out(&testpb.StreamingOutputCallResponse{Payload: body}); err != nil {
			return err
		}
	}
	return nil
}

func asked(s *testpb.EchoStatus) error {
	if s.GetCode() == 0 {
		return nil
	}
	return status.Error(codes.Code(s.GetCode()), s.GetMessage())
}

func payload(size int32) (*testpb.Payload, error) {
	if size < 0 || size > maxPayload {
		return nil, status.Errorf(codes.InvalidArgument, "%d bytes", size)
	}
	return &testpb.Payload{Body: make([]byte, size)}, nil
}
