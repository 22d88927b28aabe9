// Package ca answers IstioCertificateService/CreateCertificate: it decides who
// may have which identity and has the authority (certs) sign. It also owns the
// authentication of callers for every service of the control plane's port, the
// CA and xDS alike.
//
// A caller proves by a bearer token which service account it is, in which pod,
// on which node ([Authenticator]). It is then given its own identity, or, when
// it runs under one of the node accounts and names another identity in the
// metadata ImpersonatedIdentity, that one, provided that a pod with that service
// account runs on the caller's own node ([Placement]). A stolen node thus yields
// the identities of the pods on it and no others.
//
//	auth, err := ca.NewInterceptors(ca.InterceptorConfig{Authenticator: ca.TokenAuthenticator{Verifier: v}})
//	srv, err := ca.NewServer(ca.Config{Authority: authority, Placement: objects})
//	g := grpc.NewServer(grpc.UnaryInterceptor(auth.Unary), grpc.StreamInterceptor(auth.Stream), …)
//	auth.RegisterIstioCertificateServiceServer(g, srv)
//
// Why a request is refused is said in the log and a metric. The caller is told
// only that it is, so that nobody can learn who runs where by asking.
package ca
