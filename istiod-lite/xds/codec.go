package xds

import (
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
)

// ServerOption makes a gRPC server able to send this package's responses, which
// are put together of parts that were encoded once for all clients. The server
// that a Server is registered with needs it; for other services it changes
// nothing.
func ServerOption() grpc.ServerOption { return grpc.ForceServerCodecV2(Codec()) }

// Codec is gRPC's codec for protocol buffers, which can also encode what a
// Server sends.
func Codec() encoding.CodecV2 { return codec{encoding.GetCodecV2(proto.Name)} }

type codec struct{ encoding.CodecV2 }

// Marshal implements encoding.CodecV2.
func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	if r, ok := v.(*response); ok {
		return r.encode(), nil
	}
	return c.CodecV2.Marshal(v)
}
