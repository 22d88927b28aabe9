package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"net"
	"os"
	"os/signal"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// sniffed is what sniff prints at its end.
type sniffed struct {
	// Packets counts TCP and UDP packets, Marked those that hold the marker,
	// Dropped those that came too fast to be looked at.
	Packets, Marked, Dropped int
	// Ports counts the TCP packets with payload by the lower of their two ports,
	// which is the server's.
	Ports map[string]int
}

// sniff watches an interface for a marker in the clear, until it is interrupted.
func sniff(args []string) error {
	if err := arguments(args, "sniff INTERFACE MARKER", 2); err != nil {
		return err
	}
	iface, err := net.InterfaceByName(args[0])
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, int(htons(unix.ETH_P_ALL)))
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ALL), Ifindex: iface.Index}); err != nil {
		return err
	}
	// A large buffer, so that no packet is missed under load.
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 256<<20)
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 100_000}); err != nil {
		return err
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt, unix.SIGTERM)
	os.Stdout.WriteString("sniffing\n")
	result := sniffed{Ports: map[string]int{}}
	marker, buf := []byte(args[1]), make([]byte, 256<<10)
	deadline := time.Now().Add(10 * time.Minute)
	for time.Now().Before(deadline) {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		switch {
		case errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR):
			select {
			case <-stop:
				stats, err := unix.GetsockoptTpacketStats(fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
				if err != nil {
					return err
				}
				result.Dropped = int(stats.Drops)
				return json.NewEncoder(os.Stdout).Encode(result)
			default:
				continue
			}
		case err != nil:
			return err
		}
		result.count(buf[:n], marker)
	}
	return errors.New("nobody interrupted the capture for 10 minutes")
}

// count takes one IP packet into account.
func (s *sniffed) count(packet, marker []byte) {
	transport, protocol := split(packet)
	if len(transport) < 8 || protocol != unix.IPPROTO_TCP && protocol != unix.IPPROTO_UDP {
		return
	}
	s.Packets++
	if bytes.Contains(transport, marker) {
		s.Marked++
	}
	if protocol == unix.IPPROTO_TCP && len(transport) >= 20 && len(transport) > int(transport[12]>>4)*4 {
		port := min(binary.BigEndian.Uint16(transport), binary.BigEndian.Uint16(transport[2:]))
		s.Ports[strconv.Itoa(int(port))]++
	}
}

// split returns the transport header and what follows, and its protocol.
func split(packet []byte) ([]byte, int) {
	switch {
	case len(packet) >= 20 && packet[0]>>4 == 4:
		header, total := int(packet[0]&0xf)*4, int(binary.BigEndian.Uint16(packet[2:]))
		if header > len(packet) {
			return nil, 0
		}
		// Short frames are padded; total is 0 for offloaded large ones.
		if total >= header && total < len(packet) {
			packet = packet[:total]
		}
		return packet[header:], int(packet[9])
	case len(packet) >= 40 && packet[0]>>4 == 6:
		return packet[40:], int(packet[6])
	}
	return nil, 0
}

func htons(v uint16) uint16 { return v<<8 | v>>8 }
