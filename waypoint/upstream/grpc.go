package upstream

// The statuses of gRPC (grpc/doc/statuscodes.md).
const (
	grpcOK = iota
	grpcCancelled
	grpcUnknown
	grpcInvalidArgument
	grpcDeadlineExceeded
	grpcNotFound
	grpcAlreadyExists
	grpcPermissionDenied
	grpcResourceExhausted
	grpcFailedPrecondition
	grpcAborted
	grpcOutOfRange
	grpcUnimplemented
	grpcInternal
	grpcUnavailable
	grpcDataLoss
	grpcUnauthenticated
	grpcStatuses
)

var grpcNames = [grpcStatuses]string{
	"ok", "cancelled", "unknown", "invalid-argument", "deadline-exceeded", "not-found", "already-exists",
	"permission-denied", "resource-exhausted", "failed-precondition", "aborted", "out-of-range", "unimplemented",
	"internal", "unavailable", "data-loss", "unauthenticated",
}

// HTTPStatus returns the HTTP status that a gRPC status is counted as, as
// grpc-gateway and Envoy do; 500 for one that is unknown.
func HTTPStatus(grpc int) int {
	switch grpc {
	case grpcOK:
		return 200
	case grpcCancelled:
		return 499
	case grpcInvalidArgument, grpcFailedPrecondition, grpcOutOfRange:
		return 400
	case grpcDeadlineExceeded:
		return 504
	case grpcNotFound:
		return 404
	case grpcAlreadyExists, grpcAborted:
		return 409
	case grpcPermissionDenied:
		return 403
	case grpcUnauthenticated:
		return 401
	case grpcResourceExhausted:
		return 429
	case grpcUnimplemented:
		return 501
	case grpcUnavailable:
		return 503
	}
	return 500
}
