package zds

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	apizds "github.com/tulle-mesh/tulle/api/zds"
)

// Conn is one connection between agent and proxy.
type Conn struct{ sock *net.UnixConn }

// Dial connects to the agent at path; ctx bounds only the connecting.
func Dial(ctx context.Context, path string) (*Conn, error) {
	var c net.Conn
	err := reach(path, func(short string) error {
		var err error
		c, err = (&net.Dialer{}).DialContext(ctx, "unixpacket", short)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("dial ZDS socket %s: %w", path, err)
	}
	return &Conn{sock: c.(*net.UnixConn)}, nil
}

// Close ends the connection and all calls on it.
func (c *Conn) Close() error { return c.sock.Close() }

// SetReadDeadline bounds later and running calls of Receive, ReceiveAck and
// ReceiveHello; the zero time is no bound. Sending is always bounded, by
// sendTimeout.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.sock.SetReadDeadline(t) }

// SendHello is the proxy's first message.
func (c *Conn) SendHello() error {
	b, err := proto.Marshal(&apizds.ZdsHello{Version: apizds.Version_V1})
	if err != nil {
		return err
	}
	return c.send("hello", b, -1)
}

// ReceiveHello waits for the proxy's first message.
func (c *Conn) ReceiveHello() error {
	b, err := c.receiveBare("hello")
	if err != nil {
		return err
	}
	return decodeHello(b)
}

// Send sends one request. A *RequestError means that nothing was sent.
func (c *Conn) Send(r Request) error {
	b, err := encodeRequest(r)
	if err != nil {
		return err
	}
	fd := -1
	if add, ok := r.(*Add); ok {
		// A duplicate, so that the namespace can be closed by its owner meanwhile.
		ns, err := add.NS.Dup()
		if err != nil {
			return &RequestError{UID: add.UID, Reason: err}
		}
		defer ns.Close()
		fd = ns.FD()
	}
	return c.send("request", b, fd)
}

// Receive waits for the next request. After a *RequestError the connection
// goes on and the error belongs into the ack; after any other error it is over
// (io.EOF: the agent closed it).
func (c *Conn) Receive() (Request, error) {
	b, fds, err := c.receive("request")
	if err != nil {
		return nil, err
	}
	r, err := decodeRequest(b, fds)
	if err != nil {
		return nil, err
	}
	return r, nil
}

// SendAck answers a request: with success when reason is nil. A text too long
// for the datagram is cut.
func (c *Conn) SendAck(reason error) error {
	text := ""
	if reason != nil {
		if text = reason.Error(); text == "" {
			text = "failed"
		}
	}
	b, err := encodeAck(text)
	if err != nil {
		return err
	}
	return c.send("ack", b, -1)
}

// ReceiveAck waits for the answer to a request. A *RefusedError is the proxy's
// answer; after any other error the connection is over.
func (c *Conn) ReceiveAck() error {
	b, err := c.receiveBare("ack")
	if err != nil {
		return err
	}
	return decodeAck(b)
}

func (c *Conn) send(what string, b []byte, fd int) error {
	if len(b) > maxMessage {
		return &RequestError{Reason: fmt.Errorf("%s of %d bytes exceeds the %d of a datagram", what, len(b), maxMessage)}
	}
	var oob []byte
	if fd >= 0 {
		oob = unix.UnixRights(fd)
	}
	if err := c.sock.SetWriteDeadline(time.Now().Add(sendTimeout)); err != nil {
		return fmt.Errorf("send ZDS %s: %w", what, err)
	}
	if _, _, err := c.sock.WriteMsgUnix(b, oob, nil); err != nil {
		return fmt.Errorf("send ZDS %s: %w", what, err)
	}
	return nil
}

func (c *Conn) receiveBare(what string) ([]byte, error) {
	b, fds, err := c.receive(what)
	if err != nil {
		return nil, err
	}
	if len(fds) > 0 {
		closeAll(fds)
		return nil, &ProtocolError{Reason: fmt.Sprintf("%d descriptors beside %s", len(fds), what)}
	}
	return b, nil
}

// receive reads one datagram and its descriptors, which are the caller's. With
// an error there are none.
func (c *Conn) receive(what string) ([]byte, []int, error) {
	buf := make([]byte, maxMessage)
	oob := make([]byte, unix.CmsgSpace(4*maxDescriptors)+unix.CmsgSpace(unix.SizeofUcred))
	n, oobn, flags, _, err := c.sock.ReadMsgUnix(buf, oob)
	fds, cerr := descriptors(oob[:max(oobn, 0)])
	if err != nil {
		closeAll(fds)
		return nil, nil, fmt.Errorf("receive ZDS %s: %w", what, err)
	}
	switch {
	case flags&unix.MSG_TRUNC != 0:
		err = &ProtocolError{Reason: fmt.Sprintf("%s longer than %d bytes", what, maxMessage)}
	case flags&unix.MSG_CTRUNC != 0:
		err = &ProtocolError{Reason: fmt.Sprintf("more than %d descriptors beside %s, or none left for them here", maxDescriptors, what)}
	case cerr != nil:
		err = &ProtocolError{Reason: fmt.Sprintf("control data beside %s: %v", what, cerr)}
	}
	if err != nil {
		closeAll(fds)
		return nil, nil, err
	}
	return buf[:n], fds, nil
}

// descriptors collects all descriptors of the control data, also when part of
// it cannot be read.
func descriptors(oob []byte) ([]int, error) {
	if len(oob) == 0 {
		return nil, nil
	}
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	var fds []int
	var errs []error
	for i := range msgs {
		if msgs[i].Header.Level != unix.SOL_SOCKET || msgs[i].Header.Type != unix.SCM_RIGHTS {
			errs = append(errs, fmt.Errorf("level %d type %d", msgs[i].Header.Level, msgs[i].Header.Type))
			continue
		}
		got, err := unix.ParseUnixRights(&msgs[i])
		errs = append(errs, err)
		fds = append(fds, got...)
	}
	return fds, errors.Join(errs...)
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}
