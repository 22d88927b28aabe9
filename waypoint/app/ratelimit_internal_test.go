package app

import (
	"context"
	"net"
	"strings"
	"testing"
)

func TestPoliciesDoNotChooseAddressesOfTheWaypointsMachine(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	for _, host := range []string{"127.0.0.1", "localhost", "::ffff:127.0.0.1", "0.0.0.0", "169.254.169.254", "fe80::1%lo"} {
		conn, err := new(waypoint).dialAddress(context.Background(), net.JoinHostPort(host, port))
		if err == nil {
			_ = conn.Close()
		}
		if err == nil || !strings.Contains(err.Error(), "this machine") {
			t.Errorf("%s: %v", host, err)
		}
	}
}
