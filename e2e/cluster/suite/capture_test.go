package suite_test

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tulle-mesh/tulle/e2e/cluster/topology"
	"github.com/tulle-mesh/tulle/internal/netns"
)

// capture looks at every packet between the nodes during the whole run.
var capture *sniffer

// hbonePort is where tunnels end.
const hbonePort = 15008

// sniffer counts the packets on the nodes' LAN that hold one of the markers.
type sniffer struct {
	// secret is what enrolled pods send: it must never be seen. public is what
	// others send: seeing it shows that the capture sees what it should.
	secret, public string

	fd   int
	stop chan struct{}
	done chan struct{}

	mu      sync.Mutex
	seen    map[string]*sighting
	packets int
	tunnels int
	dropped uint32
	err     error
}

// sighting is where a marker was seen.
type sighting struct {
	packets int
	first   []string
}

// maxSightings bounds what is told of packets in the clear.
const maxSightings = 20

func newMarker(kind string) string {
	b := make([]byte, 8)
	_, _ = rand.Read(b)
	return "tulle-" + kind + "-" + hex.EncodeToString(b)
}

// startCapture opens a socket on the LAN's bridge. With the bridge in promiscuous
// mode it sees what the bridge passes from node to node.
func startCapture() (*sniffer, error) {
	ns, err := netns.Open("/run/netns/" + topology.ControlPlaneNetns)
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	s := &sniffer{
		secret: newMarker("secret"), public: newMarker("public"),
		stop: make(chan struct{}), done: make(chan struct{}), seen: map[string]*sighting{},
	}
	if err := ns.Do(func() (err error) {
		s.fd, err = openPacketSocket(topology.Bridge)
		return err
	}); err != nil {
		return nil, fmt.Errorf("capture on %s: %w", topology.Bridge, err)
	}
	s.watch(s.secret)
	s.watch(s.public)
	go s.run()
	return s, nil
}

func openPacketSocket(link string) (int, error) {
	iface, err := net.InterfaceByName(link)
	if err != nil {
		return -1, err
	}
	const all = unix.ETH_P_ALL<<8&0xff00 | unix.ETH_P_ALL>>8
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, all)
	if err != nil {
		return -1, err
	}
	err = errors.Join(
		// Large, so that no packet is missed while the machine is busy.
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 256<<20),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 100_000}),
		unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: iface.Index}),
		unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, &unix.PacketMreq{Ifindex: int32(iface.Index), Type: unix.PACKET_MR_PROMISC}),
	)
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// watch adds a marker to look for.
func (s *sniffer) watch(marker string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen[marker] = &sighting{}
}

func (s *sniffer) run() {
	defer close(s.done)
	defer unix.Close(s.fd)
	buf := make([]byte, 256<<10)
	for {
		select {
		case <-s.stop:
			return
		default:
		}
		n, _, err := unix.Recvfrom(s.fd, buf, 0)
		switch {
		case errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR):
			s.mu.Lock()
			if stats, err := unix.GetsockoptTpacketStats(s.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS); err == nil {
				s.dropped += stats.Drops
			}
			s.mu.Unlock()
		case err != nil:
			s.mu.Lock()
			s.err = err
			s.mu.Unlock()
			return
		default:
			s.look(buf[:n])
		}
	}
}

// look takes one packet into account. The kernel hands over segments as the
// sender's stack made them, often many at a time.
func (s *sniffer) look(packet []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.packets++
	from, to := endpoints(packet)
	if from.Port() == hbonePort || to.Port() == hbonePort {
		s.tunnels++
	}
	for marker, sight := range s.seen {
		if !bytes.Contains(packet, []byte(marker)) {
			continue
		}
		sight.packets++
		if len(sight.first) < maxSightings {
			sight.first = append(sight.first, fmt.Sprintf("%s %s → %s, %d bytes: %q",
				time.Now().UTC().Format("15:04:05.000"), from, to, len(packet), around(packet, marker)))
		}
	}
}

// around is the part of a packet that shows what was said.
func around(packet []byte, marker string) []byte {
	i := bytes.Index(packet, []byte(marker))
	return packet[max(0, i-60):min(len(packet), i+len(marker)+20)]
}

// endpoints reads the addresses and the ports of TCP and UDP.
func endpoints(p []byte) (from, to netip.AddrPort) {
	if len(p) == 0 {
		return
	}
	var src, dst netip.Addr
	var transport []byte
	switch p[0] >> 4 {
	case 4:
		header := int(p[0]&0xf) * 4
		if len(p) < max(header, 20)+4 {
			return
		}
		src, _ = netip.AddrFromSlice(p[12:16])
		dst, _ = netip.AddrFromSlice(p[16:20])
		transport = p[header:]
	case 6:
		if len(p) < 44 {
			return
		}
		src, _ = netip.AddrFromSlice(p[8:24])
		dst, _ = netip.AddrFromSlice(p[24:40])
		transport = p[40:]
	default:
		return
	}
	return netip.AddrPortFrom(src, binary.BigEndian.Uint16(transport)), netip.AddrPortFrom(dst, binary.BigEndian.Uint16(transport[2:]))
}

// count is how many packets held the marker so far.
func (s *sniffer) count(marker string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen[marker].packets
}

// check ends the capture and judges it.
func (s *sniffer) check(t *testing.T) {
	close(s.stop)
	<-s.done
	s.mu.Lock()
	defer s.mu.Unlock()
	t.Logf("%d packets between the nodes, %d of tunnels, %d with what was sent outside the mesh, %d missed",
		s.packets, s.tunnels, s.seen[s.public].packets, s.dropped)
	if s.err != nil {
		t.Errorf("the capture ended early: %v", s.err)
	}
	if sight := s.seen[s.secret]; sight.packets > 0 {
		t.Errorf("%d packets between the nodes hold what enrolled pods sent, in the clear:", sight.packets)
		for _, line := range sight.first {
			t.Log(line)
		}
	}
	if s.tunnels == 0 {
		t.Error("the capture saw no tunnel: did the traffic go through the mesh?")
	}
	if s.seen[s.public].packets == 0 && !running() {
		t.Error("the capture saw nothing of what was sent in the clear: does it see anything?")
	}
}
