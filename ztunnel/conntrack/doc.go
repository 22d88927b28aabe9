// Package conntrack knows the live connections of one pod: it lists them for
// config_dump, has their beginning and end reported (access log, metrics), cuts
// them when the pod goes or the drain deadline comes, and authorizes the
// inbound ones again when the policies that apply have changed.
//
// It carries no bytes. Whoever carries a connection opens it here with a
// function that cuts it, and closes it when it has ended:
//
//	ctx, cut := context.WithCancelCause(ctx)
//	live := table.Open(conntrack.Connection{…}, cut)
//	err := live.Recheck(mesh.Policies())     // what came since it was authorized
//	if err == nil {
//		err = relay.Join(ctx, app, peer, live.Counters())
//	}
//	live.Close(err)
//
// The window between an authorization and Open is closed by Recheck: a policy
// that came meanwhile is seen either by the Reauthorize that it caused, because
// the connection is listed, or by Recheck.
package conntrack
