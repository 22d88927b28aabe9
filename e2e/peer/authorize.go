package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
)

// authorize is an authorization service of both kinds, gRPC on port 9000 and HTTP on
// 8000, and beside the latter an issuer of tokens: /token?iss=…&sub=… and /jwks. It
// consents to requests with the field x-key.
func authorize([]string) error {
	ln, err := net.Listen("tcp", ":9000")
	if err != nil {
		return err
	}
	s := grpc.NewServer()
	authv3.RegisterAuthorizationServer(s, authorizer{})
	failed := make(chan error, 2)
	go func() { failed <- s.Serve(ln) }()
	handler, err := issuer()
	if err != nil {
		return err
	}
	go func() { failed <- http.ListenAndServe(":8000", handler) }()
	return <-failed
}

type authorizer struct {
	authv3.UnimplementedAuthorizationServer
}

// Check implements Envoy's API. Who asks is told to the application in x-asked-for.
func (authorizer) Check(_ context.Context, r *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	a := r.GetAttributes()
	key := a.GetRequest().GetHttp().GetHeaders()["x-key"]
	if key == "" {
		return &authv3.CheckResponse{Status: &rpcstatus.Status{Code: 7}, HttpResponse: &authv3.CheckResponse_DeniedResponse{
			DeniedResponse: &authv3.DeniedHttpResponse{Status: &typev3.HttpStatus{Code: 401}, Body: "no key"},
		}}, nil
	}
	option := func(name, value string) *corev3.HeaderValueOption {
		return &corev3.HeaderValueOption{Header: &corev3.HeaderValue{Key: name, Value: value}}
	}
	return &authv3.CheckResponse{HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: &authv3.OkHttpResponse{
		Headers:              []*corev3.HeaderValueOption{option("x-user", key)},
		ResponseHeadersToAdd: []*corev3.HeaderValueOption{option("x-asked-for", a.GetSource().GetPrincipal())},
	}}}, nil
}

// issuer answers questions over HTTP, and issues tokens.
func issuer() (http.Handler, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: key, KeyID: "k"}}, nil)
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /jwks", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: &key.PublicKey, KeyID: "k", Algorithm: "ES256", Use: "sig"}}})
	})
	mux.HandleFunc("GET /token", func(w http.ResponseWriter, r *http.Request) {
		token, err := jwt.Signed(signer).Claims(jwt.Claims{
			Issuer: r.FormValue("iss"), Subject: r.FormValue("sub"), Expiry: jwt.NewNumericDate(time.Now().Add(time.Hour)),
		}).Serialize()
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		_, _ = io.WriteString(w, token)
	})
	mux.HandleFunc("/check/", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Key") == "" {
			w.Header().Set("Location", "http://login.example/")
			w.WriteHeader(http.StatusFound)
			return
		}
		w.Header().Set("X-User", r.Header.Get("X-Key"))
		w.Header().Set("X-Asked-For", "http")
	})
	return mux, nil
}
