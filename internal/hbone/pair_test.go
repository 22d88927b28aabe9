package hbone_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/internal/hbone"
	"github.com/tulle-mesh/tulle/internal/hbone/carriertest"
)

// conns makes the two ends of one connection, client first.
type conns func(t testing.TB) (client, server net.Conn)

// tcpConns connects over the loopback.
func tcpConns(t testing.TB) (client, server net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err = net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	server, err = l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return client, server
}

// pipeConns connects in memory, without any buffer.
func pipeConns(testing.TB) (client, server net.Conn) { return net.Pipe() }

// tlsConns connects with TLS 1.3 as the proxies do.
func tlsConns(t testing.TB) (client, server net.Conn) {
	t.Helper()
	c, s := tcpConns(t)
	return tls.Client(hbone.WrapConn(c), clientTLS(t)), tls.Server(hbone.WrapConn(s), serverTLS(t))
}

// plainTLSConns connects with TLS on bare sockets, which works too.
func plainTLSConns(t testing.TB) (client, server net.Conn) {
	t.Helper()
	c, s := tcpConns(t)
	return tls.Client(c, clientTLS(t)), tls.Server(s, serverTLS(t))
}

var certificate = sync.OnceValues(func() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"test"}, NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
})

func serverTLS(t testing.TB) *tls.Config {
	cert, err := certificate()
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{
		Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13, NextProtos: []string{"h2"},
		SessionTicketsDisabled: true, DynamicRecordSizingDisabled: true,
		ClientAuth: tls.RequireAnyClientCert, CipherSuites: nil,
	}
}

func clientTLS(t testing.TB) *tls.Config {
	cfg := serverTLS(t)
	cfg.InsecureSkipVerify = true // the test looks at the tunnel, not at identities
	return cfg
}

// tunnelPair runs server on one end of a connection and a client on the other.
func tunnelPair(t testing.TB, make conns, server *hbone.Server, cfg hbone.ClientConfig) *hbone.ClientConn {
	t.Helper()
	c, s := make(t)
	served := serve(t, server, s)
	client, err := hbone.NewClient(c, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = client.Close()
		<-served
	})
	return client
}

// serve runs server on conn; the channel ends with it.
func serve(t testing.TB, server *hbone.Server, conn net.Conn) <-chan error {
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() {
		served <- server.ServeConn(ctx, conn, nil)
		close(served)
	}()
	t.Cleanup(cancel)
	return served
}

func TestCarrier(t *testing.T) {
	for name, make := range map[string]conns{
		"TLS": tlsConns, "TCP": tcpConns, "Pipe": pipeConns, "TLSOnBareSocket": plainTLSConns,
	} {
		t.Run(name, func(t *testing.T) {
			carriertest.Run(t, func(t *testing.T, h hbone.Handler) carriertest.Pair {
				server := &hbone.Server{Handler: h}
				return carriertest.Pair{Client: tunnelPair(t, make, server, hbone.ClientConfig{}), Drain: server.Drain}
			})
		})
	}
}
