package redirect

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/tulle-mesh/tulle/internal/netns"
)

// Generation returns the number of the last change that anybody made to the
// nftables rules of ns. While it stays the same, so do the rules; asking is many
// times cheaper than Verify. Policy routing is not part of it.
func Generation(ns *netns.NS) (uint32, error) {
	var conn *netlink.Conn
	err := ns.Do(func() error {
		var err error
		conn, err = netlink.Dial(unix.NETLINK_NETFILTER, nil)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("nftables in %v: open socket: %w", ns.ID(), err)
	}
	defer conn.Close()
	answers, err := conn.Execute(netlink.Message{
		Header: netlink.Header{
			Type:  netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETGEN),
			Flags: netlink.Request,
		},
		Data: make([]byte, sizeofNfgenmsg),
	})
	if err != nil {
		return 0, fmt.Errorf("nftables in %v: get generation: %w", ns.ID(), err)
	}
	for _, m := range answers {
		if id, ok := generationOf(m.Data); ok {
			return id, nil
		}
	}
	return 0, fmt.Errorf("nftables in %v: get generation: %w", ns.ID(), errors.New("no answer"))
}

// sizeofNfgenmsg is the size of struct nfgenmsg (linux/netfilter/nfnetlink.h),
// which all messages of nftables begin with.
const sizeofNfgenmsg = 4

func generationOf(b []byte) (uint32, bool) {
	if len(b) < sizeofNfgenmsg {
		return 0, false
	}
	attributes, err := netlink.NewAttributeDecoder(b[sizeofNfgenmsg:])
	if err != nil {
		return 0, false
	}
	attributes.ByteOrder = binary.BigEndian
	for attributes.Next() {
		if attributes.Type() == unix.NFTA_GEN_ID {
			return attributes.Uint32(), attributes.Err() == nil
		}
	}
	return 0, false
}
