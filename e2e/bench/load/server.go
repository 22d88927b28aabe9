package load

import (
	"encoding/binary"
	"io"
	"net"
)

// Port is where the server listens.
const Port = 7000

// What the first byte of a connection asks for.
const (
	askSink   = 'u' // read to the end, then tell how many bytes came, 8 bytes big-endian
	askSource = 'd' // send until the client goes
	askEcho   = 'r' // answer every message of MessageBytes with as many bytes
	askPing   = 'c' // answer one byte and wait for the end
)

// MessageBytes is the size of a request and of its answer.
const MessageBytes = 1 << 10

// bulkBytes is the size of one read or write of bulk data.
const bulkBytes = 256 << 10

// Serve answers connections until l is closed.
func Serve(l net.Listener) error {
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go serveConn(c)
	}
}

func serveConn(c net.Conn) {
	defer c.Close()
	var what [1]byte
	if _, err := io.ReadFull(c, what[:]); err != nil {
		return
	}
	switch what[0] {
	case askSink:
		n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{c}, make([]byte, bulkBytes))
		if err == nil {
			c.Write(binary.BigEndian.AppendUint64(nil, uint64(n)))
		}
	case askSource:
		buf := make([]byte, bulkBytes)
		for {
			if _, err := c.Write(buf); err != nil {
				return
			}
		}
	case askEcho:
		var buf [MessageBytes]byte
		for {
			if _, err := io.ReadFull(c, buf[:]); err != nil {
				return
			}
			if _, err := c.Write(buf[:]); err != nil {
				return
			}
		}
	case askPing:
		c.Write(what[:])
		c.Read(what[:])
	}
}
