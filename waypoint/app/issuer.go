package app

import (
	"context"
	"errors"
	"net"
	"strconv"

	"github.com/tulle-mesh/tulle/waypoint/jwt"
	"github.com/tulle-mesh/tulle/waypoint/mesh"
	"github.com/tulle-mesh/tulle/waypoint/upstream"
)

// dialIssuer connects to whoever has the keys of an issuer: a service of the mesh by its
// name in the cluster, in a tunnel and as the waypoint, and everybody else directly.
func (w *waypoint) dialIssuer(ctx context.Context, network, address string) (net.Conn, error) {
	host, digits, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	port, err := strconv.ParseUint(digits, 10, 16)
	if err != nil {
		return nil, err
	}
	service, ok := mesh.ServiceOf(host)
	if !ok {
		return jwt.Dial(ctx, network, address)
	}
	up, _, err := w.mesh.Backend(ctx, service, uint16(port))
	if errors.Is(err, mesh.ErrNoService) {
		// The name of a cluster that is not all in this mesh.
		return jwt.Dial(ctx, network, address)
	}
	if err != nil {
		return nil, err
	}
	var tried []*upstream.Target
	for {
		target, pickErr := up.Pick(upstream.Options{Avoid: tried})
		if pickErr != nil {
			return nil, errors.Join(pickErr, err)
		}
		call := target.Begin()
		var conn net.Conn
		if conn, err = w.dialer.Dial(ctx, targetOf(target.Endpoint())); err == nil {
			call.End()
			return conn, nil
		}
		call.Report(upstream.Outcome{Failure: upstream.ConnectFailed, GRPC: -1})
		call.End()
		if tried = append(tried, target); len(tried) == issuerAttempts || ctx.Err() != nil {
			return nil, err
		}
	}
}
