package extauthz

import (
	"encoding/binary"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/protobuf/proto"

	api "github.com/tulle-mesh/tulle/api/waypoint"
	"github.com/tulle-mesh/tulle/waypoint/message"
)

// sound checks that what an answer makes of a request and a response can be sent.
func sound(t *testing.T, a *Answer) {
	r := &message.Request{Method: "GET", Path: "/", Query: "a=1&b", HasQuery: true, Header: message.Header{{Name: "x-user", Value: "forged"}}}
	response := &message.Response{Status: 200}
	a.Apply(r)
	a.ApplyResponse(response)
	for _, h := range []message.Header{r.Header, response.Header, a.Header} {
		for _, f := range h {
			if !message.ValidName(f.Name) || !message.ValidValue(f.Value) || message.Reserved(f.Name) {
				t.Errorf("%q", f)
			}
		}
	}
	if _, _, _, err := message.ParseTarget(r.Target()); err != nil {
		t.Errorf("%q: %v", r.Target(), err)
	}
	if !a.Allowed() && (a.Status < 200 || a.Status > 599) {
		t.Errorf("status %d", a.Status)
	}
}

func FuzzCall(f *testing.F) {
	seed, err := proto.Marshal(&authv3.CheckResponse{HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: &authv3.OkHttpResponse{
		Headers:                 []*corev3.HeaderValueOption{{Header: &corev3.HeaderValue{Key: "X-User", Value: "ann"}}},
		HeadersToRemove:         []string{"x-key"},
		QueryParametersToSet:    []*corev3.QueryParameter{{Key: "b", Value: "3 &#"}},
		QueryParametersToRemove: []string{"a"},
	}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(seed))), seed...), "0")
	f.Add([]byte{}, "")
	f.Add(seed, "7")
	f.Fuzz(func(t *testing.T, content []byte, status string) {
		a, err := readCall(&reply{
			head:    &message.Response{Status: 200, Header: message.Header{{Name: "content-type", Value: "application/grpc"}}},
			content: content, trailer: message.Header{{Name: "grpc-status", Value: status}},
		})
		if err == nil {
			sound(t, a)
		}
	})
}

func FuzzResponse(f *testing.F) {
	f.Add(200, "x-user", "ann", "x-envoy-auth-headers-to-remove", "a, b")
	f.Add(302, "location", "/", "content-length", "5")
	f.Fuzz(func(t *testing.T, status int, name, value, other, otherValue string) {
		auth := &api.ExternalAuth{AllowedResponseHeaders: []string{"*"}, AllowedClientHeaders: []string{"x-*"}}
		a, err := readResponse(auth, &reply{head: &message.Response{Status: status, Header: message.Header{{Name: name, Value: value}, {Name: other, Value: otherValue}}}})
		if err == nil {
			sound(t, a)
		}
	})
}
