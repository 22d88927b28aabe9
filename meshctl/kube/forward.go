package kube

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/httpstream"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"
)

// PodDialer returns a function that connects to a TCP port of a pod's loopback
// interface, through the API server as `kubectl port-forward` does. Nothing
// listens on this machine. Every connection has an upgraded request of its own,
// which ends with it; ctx bounds the dialling only. It needs the verb create on
// pods/portforward.
func (c *Client) PodDialer(namespace, pod string) func(ctx context.Context, port uint16) (net.Conn, error) {
	return func(ctx context.Context, port uint16) (net.Conn, error) {
		conn, err := c.forward(ctx, namespace, pod, port)
		if err != nil {
			return nil, fmt.Errorf("port %d of pod %s/%s: %w", port, namespace, pod, c.Explain(err))
		}
		return conn, nil
	}
}

// PodHTTP returns an HTTP client whose every request goes to that port of the
// pod, whatever host the URL names. Close its idle connections when done.
func (c *Client) PodHTTP(namespace, pod string, port uint16) *http.Client {
	dial := c.PodDialer(namespace, pod)
	return &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, port) },
	}}
}

func (c *Client) forward(ctx context.Context, namespace, pod string, port uint16) (net.Conn, error) {
	dialer, err := c.streamDialer(namespace, pod)
	if err != nil {
		return nil, err
	}
	type result struct {
		conn *podConn
		err  error
	}
	done := make(chan result, 1)
	go func() {
		conn, err := open(dialer, namespace+"/"+pod, port)
		done <- result{conn, err}
	}()
	select {
	case r := <-done:
		if r.err != nil {
			return nil, r.err
		}
		return r.conn, nil
	case <-ctx.Done():
		// The dialer takes no context. What it still opens is closed again.
		go func() {
			if r := <-done; r.err == nil {
				r.conn.Close()
			}
		}()
		return nil, context.Cause(ctx)
	}
}

// streamDialer prefers WebSocket, which gets through proxies, and falls back to
// SPDY for servers before Kubernetes 1.31.
func (c *Client) streamDialer(namespace, pod string) (httpstream.Dialer, error) {
	url := c.Kubernetes.CoreV1().RESTClient().Post().Resource("pods").Namespace(namespace).Name(pod).SubResource("portforward").URL()
	transport, upgrader, err := spdy.RoundTripperFor(c.Config)
	if err != nil {
		return nil, err
	}
	old := spdy.NewDialer(upgrader, &http.Client{Transport: transport}, http.MethodPost, url)
	current, err := portforward.NewSPDYOverWebsocketDialer(url, c.Config)
	if err != nil {
		return nil, err
	}
	return portforward.NewFallbackDialer(current, old, func(err error) bool {
		return httpstream.IsUpgradeFailure(err) || httpstream.IsHTTPSProxyError(err)
	}), nil
}

// open makes the two streams of one forwarded connection: the kubelet says on the
// first why the second failed.
func open(dialer httpstream.Dialer, name string, port uint16) (*podConn, error) {
	conn, protocol, err := dialer.Dial(portforward.PortForwardProtocolV1Name)
	if err != nil {
		return nil, err
	}
	p := &podConn{conn: conn, name: name, port: port, refused: make(chan struct{})}
	if protocol != portforward.PortForwardProtocolV1Name {
		conn.Close()
		return nil, fmt.Errorf("the API server forwards ports by %q, not by %q", protocol, portforward.PortForwardProtocolV1Name)
	}
	headers := http.Header{}
	headers.Set(corev1.PortHeader, strconv.Itoa(int(port)))
	headers.Set(corev1.PortForwardRequestIDHeader, "0")
	headers.Set(corev1.StreamType, corev1.StreamTypeError)
	refusal, err := conn.CreateStream(headers)
	if err != nil {
		conn.Close()
		return nil, err
	}
	refusal.Close() // our half: nothing is said on it
	headers.Set(corev1.StreamType, corev1.StreamTypeData)
	if p.data, err = conn.CreateStream(headers); err != nil {
		conn.Close()
		return nil, err
	}
	go p.watch(refusal)
	return p, nil
}

// podConn is one forwarded connection.
type podConn struct {
	conn httpstream.Connection
	data httpstream.Stream
	name string
	port uint16
	once sync.Once

	refused chan struct{} // closed when refusal is final
	refusal error
}

// watch waits for the kubelet's word on the connection: an empty one is its end.
func (p *podConn) watch(stream httpstream.Stream) {
	defer close(p.refused)
	text, err := io.ReadAll(io.LimitReader(stream, maxRefusalBytes))
	if err == nil && len(text) > 0 {
		p.refusal = fmt.Errorf("port %d of pod %s: %s", p.port, p.name, cause(string(text)))
		p.conn.Close()
	}
}

// cause cuts the kubelet's sentence down to its last part, which says what
// happened: "… inside namespace …: dial tcp4 127.0.0.1:15000: connect: connection
// refused".
func cause(text string) string {
	text = strings.TrimSpace(text)
	if i := strings.LastIndex(text, "connect: "); i >= 0 {
		return text[i+len("connect: "):]
	}
	return text
}

func (p *podConn) Read(b []byte) (int, error) {
	n, err := p.data.Read(b)
	if n > 0 || err == nil {
		return n, err
	}
	return n, p.reason(err)
}

func (p *podConn) Write(b []byte) (int, error) {
	n, err := p.data.Write(b)
	if err != nil {
		err = p.reason(err)
	}
	return n, err
}

// reason prefers what the kubelet said to how the stream ended. Its word comes
// with the end of the stream or not at all, so that the wait is short.
func (p *podConn) reason(err error) error {
	wait := time.NewTimer(refusalWait)
	defer wait.Stop()
	select {
	case <-p.refused:
		if p.refusal != nil {
			return p.refusal
		}
	case <-wait.C:
	}
	return err
}

func (p *podConn) Close() error {
	var err error
	p.once.Do(func() { err = errors.Join(p.data.Close(), p.conn.Close()) })
	return err
}

// podAddr names a pod's port.
type podAddr string

func (podAddr) Network() string  { return "portforward" }
func (a podAddr) String() string { return string(a) }

func (p *podConn) LocalAddr() net.Addr  { return podAddr("meshctl") }
func (p *podConn) RemoteAddr() net.Addr { return podAddr(fmt.Sprintf("%s:%d", p.name, p.port)) }

// Deadlines are refused: a stream inside the upgraded connection has none. Close
// ends what waits.
func (p *podConn) SetDeadline(time.Time) error      { return errNoDeadline }
func (p *podConn) SetReadDeadline(time.Time) error  { return errNoDeadline }
func (p *podConn) SetWriteDeadline(time.Time) error { return errNoDeadline }

var errNoDeadline = errors.New("connections through a port-forward have no deadlines; close them instead")
