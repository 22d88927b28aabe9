package main

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// The service has the name that Istio's test application gave it, and messages of
// the same form on the wire: one string in field 1.
const (
	echoService = "proto.EchoTestService"
	echoMethod  = "/" + echoService + "/Echo"
)

// echoer answers one message.
type echoer interface {
	echo(ctx context.Context, message string) (string, error)
}

// echoDesc describes the service; there is no generated code for two strings.
var echoDesc = grpc.ServiceDesc{
	ServiceName: echoService,
	HandlerType: (*echoer)(nil),
	Methods: []grpc.MethodDesc{{
		MethodName: "Echo",
		Handler: func(srv any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			in := new(wrapperspb.StringValue)
			if err := decode(in); err != nil {
				return nil, err
			}
			out, err := srv.(echoer).echo(ctx, in.GetValue())
			if err != nil {
				return nil, err
			}
			return wrapperspb.String(out), nil
		},
	}},
}
