// Package caclient fetches certificates from an Istio-compatible authority over
// gRPC: IstioCertificateService/CreateCertificate with the metadata
// ImpersonatedIdentity, by which a node proxy asks for the identity of a pod on
// its node. It owns the request, the check of the answer, and the bearer token;
// when to ask and what to do about failures is certs/rotation's.
//
//	conn, err := caclient.Dial(address, mtls.ControlPlaneClient(roots, name))
//	client := caclient.New(conn, caclient.Config{Token: caclient.TokenFile{Path: "/var/run/secrets/tokens/istio-token"}})
//	svid, bundle, err := client.Sign(ctx, id)
package caclient
