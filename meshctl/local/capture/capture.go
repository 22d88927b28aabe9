package capture

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sort"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// maxPacket holds what offloading makes of TCP segments: up to 64 KiB, and
	// 512 KiB with BIG TCP.
	maxPacket = 1 << 20
	// receiveBuffer is what the kernel may keep for us while we count; what does
	// not fit is counted as dropped.
	receiveBuffer = 64 << 20
	// wakePeriod is how often a quiet link is left to see whether to end.
	wakePeriod = 50 * time.Millisecond
	// drainLimit bounds how long a link that is never quiet is read after the end.
	drainLimit = time.Second
)

// Flow sums up one transport and port.
type Flow struct {
	// Protocol is tcp or udp, or what else the packets are.
	Protocol string `json:"protocol"`
	// Port is the well-known side's: the lower of the two; 0 for other protocols.
	Port    uint16 `json:"port,omitempty"`
	Packets int    `json:"packets"`
	// PayloadBytes counts without headers.
	PayloadBytes int64 `json:"payloadBytes"`
}

// Report is what went over a link.
type Report struct {
	Packets int    `json:"packets"`
	Flows   []Flow `json:"flows"`
	// Found is how many packets had the text in their payload.
	Found int `json:"found"`
	// Example is the payload of the first of them, up to 512 bytes.
	Example []byte `json:"example,omitempty"`
	// Dropped packets were not looked at: with any, the report proves nothing.
	Dropped int `json:"dropped"`
}

// Capture counts what goes over link until ctx ends. find may be empty. ready is
// called as soon as no packet can be missed any more.
func Capture(ctx context.Context, link string, find []byte, ready func()) (Report, error) {
	iface, err := net.InterfaceByName(link)
	if err != nil {
		return Report{}, fmt.Errorf("link %s: %w", link, err)
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(bigEndian(unix.ETH_P_ALL)))
	if err != nil {
		return Report{}, fmt.Errorf("open packet socket: %w (needs CAP_NET_RAW)", err)
	}
	defer unix.Close(fd)
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) != nil {
		// Not allowed outside the first user namespace; the usual limit must do.
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer)
	}
	wake := unix.NsecToTimeval(int64(wakePeriod))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wake); err != nil {
		return Report{}, fmt.Errorf("packet socket: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: bigEndian(unix.ETH_P_ALL), Ifindex: iface.Index}); err != nil {
		return Report{}, fmt.Errorf("packet socket on %s: %w", link, err)
	}
	ready()
	c := counter{find: find, flows: map[key]*Flow{}}
	buf := make([]byte, maxPacket)
	var end time.Time // when ctx was seen to have ended
	for {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		switch {
		case err == nil:
			c.packet(buf[:n])
			if ctx.Err() == nil {
				continue
			}
			if end.IsZero() {
				end = time.Now()
			}
			if time.Since(end) < drainLimit {
				continue
			}
		case errors.Is(err, unix.EINTR):
			continue
		case !errors.Is(err, unix.EAGAIN):
			return Report{}, fmt.Errorf("read from %s: %w", link, err)
		}
		// The link is quiet: what was on its way when ctx ended has been seen.
		if ctx.Err() != nil {
			break
		}
	}
	stats, err := unix.GetsockoptTpacketStats(fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if err != nil {
		return Report{}, fmt.Errorf("statistics of %s: %w", link, err)
	}
	c.report.Dropped = int(stats.Drops)
	return c.finish(), nil
}

type key struct {
	protocol string
	port     uint16
}

type counter struct {
	find   []byte
	flows  map[key]*Flow
	report Report
}

func (c *counter) packet(frame []byte) {
	protocol, port, payload := parse(frame)
	c.report.Packets++
	f := c.flows[key{protocol, port}]
	if f == nil {
		f = &Flow{Protocol: protocol, Port: port}
		c.flows[key{protocol, port}] = f
	}
	f.Packets++
	f.PayloadBytes += int64(len(payload))
	if len(c.find) > 0 && bytes.Contains(payload, c.find) {
		c.report.Found++
		if c.report.Example == nil {
			c.report.Example = bytes.Clone(payload[:min(len(payload), 512)])
		}
	}
}

func (c *counter) finish() Report {
	c.report.Flows = []Flow{}
	for _, f := range c.flows {
		c.report.Flows = append(c.report.Flows, *f)
	}
	sort.Slice(c.report.Flows, func(i, j int) bool {
		a, b := c.report.Flows[i], c.report.Flows[j]
		return a.PayloadBytes > b.PayloadBytes || a.PayloadBytes == b.PayloadBytes && (a.Protocol < b.Protocol || a.Protocol == b.Protocol && a.Port < b.Port)
	})
	return c.report
}

// parse finds transport, port and payload of an Ethernet frame. What it cannot
// read to the end is payload as a whole, so that a search misses nothing.
func parse(frame []byte) (protocol string, port uint16, payload []byte) {
	if len(frame) < 14 {
		return "ethernet", 0, frame
	}
	kind, rest := binary.BigEndian.Uint16(frame[12:]), frame[14:]
	var next byte
	switch kind {
	case unix.ETH_P_IP:
		header := 0
		if len(rest) >= 20 {
			header = int(rest[0]&0x0f) * 4
		}
		if header < 20 || len(rest) < header {
			return "ipv4", 0, rest
		}
		next = rest[9]
		if total := int(binary.BigEndian.Uint16(rest[2:])); total >= header && total < len(rest) {
			rest = rest[:total] // without Ethernet's padding
		}
		rest = rest[header:]
	case unix.ETH_P_IPV6:
		if len(rest) < 40 {
			return "ipv6", 0, rest
		}
		next, rest = rest[6], rest[40:]
	case unix.ETH_P_ARP:
		return "arp", 0, rest
	default:
		return fmt.Sprintf("ethertype %#04x", kind), 0, rest
	}
	header, name := 0, ""
	switch next {
	case unix.IPPROTO_TCP:
		name = "tcp"
		if len(rest) >= 20 {
			header = int(rest[12]>>4) * 4
		}
	case unix.IPPROTO_UDP:
		name, header = "udp", 8
	case unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6:
		return "icmp", 0, rest
	default:
		return fmt.Sprintf("ip protocol %d", next), 0, rest
	}
	if header < 8 || len(rest) < header {
		return name, 0, rest
	}
	from, to := binary.BigEndian.Uint16(rest), binary.BigEndian.Uint16(rest[2:])
	return name, min(from, to), rest[header:]
}

// bigEndian turns a number into network order, which packet sockets take.
func bigEndian(n uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], n)
	return binary.NativeEndian.Uint16(b[:])
}
