package sockdiag

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/tulle-mesh/tulle/internal/netns"
)

// State is a state of TCP as the kernel numbers them (net/tcp_states.h).
type State uint8

// The states that this package asks for: those of a connection that has been
// established and can still carry data.
const (
	Established State = 1
	FinWait1    State = 4
	FinWait2    State = 5
	CloseWait   State = 8

	// lastAck and closing have only their end to agree on.
	lastAck State = 9
	closing State = 11
)

// String is the name that ss(8) prints.
func (s State) String() string {
	switch s {
	case Established:
		return "ESTAB"
	case FinWait1:
		return "FIN-WAIT-1"
	case FinWait2:
		return "FIN-WAIT-2"
	case CloseWait:
		return "CLOSE-WAIT"
	}
	return fmt.Sprintf("state %d", uint8(s))
}

// Socket is one TCP connection.
type Socket struct {
	// Local and Remote are unmapped.
	Local, Remote netip.AddrPort
	State         State
	// Mark is the socket's SO_MARK.
	Mark uint32
	// Cookie identifies the socket in its namespace for ever.
	Cookie uint64

	id id
}

// id is struct inet_diag_sockid with the family before it, as the kernel gave
// it and wants it back.
type id struct {
	family byte
	raw    [sizeID]byte
}

// Sizes of the kernel's structures in bytes, and where fields are in them.
const (
	sizeID      = 48 // inet_diag_sockid: ports, addresses, interface, cookie
	sizeRequest = 56 // inet_diag_req_v2
	sizeMessage = 72 // inet_diag_msg
	cookieAt    = 40 // in inet_diag_sockid
	idAt        = 4  // in inet_diag_msg
	// attributeMark is INET_DIAG_MARK, sent to callers with CAP_NET_ADMIN.
	attributeMark = 15
)

// ErrUnsupported says that the kernel cannot end sockets
// (CONFIG_INET_DIAG_DESTROY).
var ErrUnsupported = errors.New("the kernel cannot end connections of others (CONFIG_INET_DIAG_DESTROY is off)")

// List returns the namespace's TCP connections of both families, without
// listeners and what is only opening or already closed.
func List(ns *netns.NS) ([]Socket, error) {
	return list(ns, Established, FinWait1, FinWait2, CloseWait)
}

func list(ns *netns.NS, states ...State) ([]Socket, error) {
	var mask uint32
	for _, s := range states {
		mask |= 1 << s
	}
	conn, err := open(ns)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	var all []Socket
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		messages, err := conn.Execute(netlink.Message{
			Header: netlink.Header{Type: unix.SOCK_DIAG_BY_FAMILY, Flags: netlink.Request | netlink.Dump},
			Data:   encode(id{family: family}, mask),
		})
		if err != nil {
			return nil, fmt.Errorf("list connections in %v: %w", ns.ID(), err)
		}
		for _, m := range messages {
			s, err := decode(m.Data)
			if err != nil {
				return nil, fmt.Errorf("list connections in %v: %w", ns.ID(), err)
			}
			if len(all) == maxSockets {
				return all, nil
			}
			all = append(all, s)
		}
	}
	return all, nil
}

// Destroy ends the connection at once, as SOCK_DESTROY does: both the
// application and its peer see a reset. It returns nil when the connection has
// ended by itself meanwhile.
func Destroy(ns *netns.NS, s Socket) error {
	conn, err := open(ns)
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = conn.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.SOCK_DESTROY, Flags: netlink.Request | netlink.Acknowledge},
		Data:   encode(s.id, ^uint32(0)),
	})
	switch {
	case err == nil, errors.Is(err, unix.ENOENT):
		return nil
	case errors.Is(err, unix.EOPNOTSUPP):
		err = ErrUnsupported
	}
	return fmt.Errorf("end connection %v to %v: %w", s.Local, s.Remote, err)
}

func open(ns *netns.NS) (*netlink.Conn, error) {
	var conn *netlink.Conn
	err := ns.Do(func() error {
		var err error
		conn, err = netlink.Dial(unix.NETLINK_SOCK_DIAG, nil)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open sock_diag socket in %v: %w", ns.ID(), err)
	}
	if err := conn.SetDeadline(time.Now().Add(answerTimeout)); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// encode makes an inet_diag_req_v2.
func encode(which id, states uint32) []byte {
	b := make([]byte, 8, sizeRequest)
	b[0], b[1] = which.family, unix.IPPROTO_TCP
	binary.NativeEndian.PutUint32(b[4:], states)
	return append(b, which.raw[:]...)
}

// decode reads an inet_diag_msg and its attributes.
func decode(b []byte) (Socket, error) {
	if len(b) < sizeMessage {
		return Socket{}, fmt.Errorf("message of %d bytes, want %d", len(b), sizeMessage)
	}
	s := Socket{State: State(b[1]), id: id{family: b[0]}}
	copy(s.id.raw[:], b[idAt:])
	s.Cookie = binary.NativeEndian.Uint64(s.id.raw[cookieAt:])
	s.Local = address(b[0], b[idAt+4:], b[idAt:])
	s.Remote = address(b[0], b[idAt+20:], b[idAt+2:])
	attributes, err := netlink.NewAttributeDecoder(b[sizeMessage:])
	if err != nil {
		return Socket{}, err
	}
	for attributes.Next() {
		if attributes.Type() == attributeMark {
			s.Mark = attributes.Uint32()
		}
	}
	return s, attributes.Err()
}

func address(family byte, addr, port []byte) netip.AddrPort {
	p := binary.BigEndian.Uint16(port)
	if family == unix.AF_INET {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(addr[:4])), p)
	}
	return netip.AddrPortFrom(netip.AddrFrom16([16]byte(addr[:16])).Unmap(), p)
}
