package mesh_test

import "testing"

// TestOverQUIC runs what matters over the other carrier, in a mesh of its own.
func TestOverQUIC(t *testing.T) {
	m := startApart(t, "--ztunnel-arg=--carrier=h3")
	t.Run("protocols", func(t *testing.T) { protocols(t, m) })
	t.Run("original source", func(t *testing.T) { originalSource(t, m) })
	t.Run("100 MiB each way", func(t *testing.T) {
		const size = "104857600"
		m.want(t, client, "get: "+size, "get", peerService+":7002", size)
		m.want(t, client, "put: "+size, "put", peerService+":7003", size)
	})
	t.Run("500 connections", func(t *testing.T) {
		m.want(t, client, "connections: 500", "many", peerService+":7000", "500")
	})
	t.Run("PostgreSQL", func(t *testing.T) { postgreSQL(t, m) })
	t.Run("policy cuts", func(t *testing.T) { policyCuts(t, m) })
	t.Run("no plaintext, and no tunnel on TCP", func(t *testing.T) {
		const marker = "never-in-the-clear-3c55"
		seen := m.capture(t, "node-1", marker)
		m.want(t, client, marker, "echo", peerService+":7000", marker)
		s := seen()
		if s.Marked != 0 {
			t.Errorf("%d packets held the marker in the clear", s.Marked)
		}
		for port, n := range s.Ports {
			if port != "15012" {
				t.Errorf("%d TCP packets to port %s", n, port)
			}
		}
		if s.Packets == 0 {
			t.Error("no packet was seen")
		}
	})
}
