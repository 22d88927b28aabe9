// Package explain joins what two ztunnels say of one connection into an
// explanation for people: the client's node proxy says where it would go, the
// node proxy of each endpoint whether it would pass there, and the control plane
// which configuration each of them has acknowledged. The decisions are the
// ztunnels' own, on their live state; this package asks and words them.
//
//	e, err := explain.Explain(ctx, m, explain.Request{Client: "deploy/web", Server: "db:5432", Namespace: "shop"})
//	switch e.Outcome { case explain.Allowed: … }
//
// An error means that the question could not be asked (no such pod, no mesh); what
// the mesh would do with the connection is never an error.
package explain
