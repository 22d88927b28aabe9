package extauthz

import (
	"testing"
	"time"

	api "github.com/tulle-mesh/tulle/api/waypoint"
	"github.com/tulle-mesh/tulle/waypoint/message"
)

func TestQuestionsOverTLSAreOfHTTPS(t *testing.T) {
	for secure, want := range map[bool]string{false: "http", true: "https"} {
		q := &Question{Secure: secure, Request: &message.Request{Method: "GET", Scheme: "http", Authority: "shop.example", Path: "/"}}
		call, _, err := callOf(&api.ExternalAuth{Grpc: true}, q, time.Second)
		if err != nil || call.Scheme != want {
			t.Errorf("TLS %v: %v, %v", secure, call, err)
		}
		plain, _, err := requestOf(&api.ExternalAuth{}, q)
		if err != nil || plain.Scheme != want {
			t.Errorf("TLS %v, over HTTP: %v, %v", secure, plain, err)
		}
	}
}
