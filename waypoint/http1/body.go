package http1

import (
	"bytes"
	"errors"
	"io"
	"math"
	"sync"

	"github.com/tulle-mesh/tulle/waypoint/message"
)

// How the end of a content is known.
type framing int

const (
	framedNone    framing = iota // there is none
	framedLength                 // by its length
	framedChunked                // by an empty chunk
	framedClose                  // by the end of the connection
)

// What a chunked content has next.
type chunkState int

const (
	chunkSize chunkState = iota
	chunkData
	chunkEnd // the CRLF after the data
	chunkTrailer
)

// source is where content is read from, with the time limits and contexts of its role.
type source interface {
	// input is the connection's reading side.
	input() *wire
	// fill reads more into its buffer. It returns false when there is no room.
	fill() (bool, error)
	// read reads past its buffer, which is empty.
	readInto(p []byte) (int, error)
	// finished is called once, when the content has ended in order.
	finished()
}

// body reads the content of a message. It implements message.Body.
type body struct {
	// mu is held while somebody reads, so that the end of an exchange can wait for that.
	mu sync.Mutex

	from    source
	framing framing
	state   chunkState
	// left is what is missing of the content, or of the chunk.
	left       int64
	extensions int
	empty      search // for the end of the trailers
	trailer    message.Header
	// err is what Read returns from now on; io.EOF after the end.
	err error
}

// start makes b the content that follows a head. A content without octets has ended.
func (b *body) start(from source, f framing, length int64) {
	b.from, b.framing, b.left = from, f, length
	b.state, b.extensions, b.empty, b.trailer, b.err = chunkSize, 0, search{}, nil, nil
	if f == framedNone || f == framedLength && length == 0 {
		b.framing, b.err = framedNone, io.EOF
	}
}

// Trailer implements message.Body.
func (b *body) Trailer() message.Header { return b.trailer }

// Buffered implements message.BufferedBody.
func (b *body) Buffered() (int, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err != nil {
		return 0, b.done()
	}
	have := b.from.input().buffered()
	switch b.framing {
	case framedLength:
		n := min(int64(len(have)), b.left)
		return int(n), n == b.left
	case framedClose:
		return len(have), false
	}
	return b.bufferedChunks(have)
}

// bufferedChunks is Buffered of a chunked content. It judges nothing: it stops where
// Read will, or before.
func (b *body) bufferedChunks(have []byte) (n int, whole bool) {
	state, left := b.state, b.left
	for {
		switch state {
		case chunkData:
			got := min(int64(len(have)), left)
			n += int(got)
			if have = have[got:]; got < left {
				return n, false
			}
			state = chunkEnd
		case chunkEnd:
			if !bytes.HasPrefix(have, crlf) {
				return n, false
			}
			have, state = have[2:], chunkSize
		case chunkSize:
			left = 0
			i := 0
			for ; i < len(have) && i < maxChunkDigits && unhex[have[i]] <= 15; i++ {
				left = left<<4 | int64(unhex[have[i]])
			}
			if i == 0 || !bytes.HasPrefix(have[i:], crlf) {
				return n, false
			}
			have, state = have[i+2:], chunkData
			if left == 0 {
				state = chunkTrailer
			}
		case chunkTrailer:
			return n, bytes.HasPrefix(have, crlf) || bytes.Contains(have, headEnd)
		}
	}
}

// done reports whether the content has ended in order.
func (b *body) done() bool { return b.err == io.EOF }

// Read implements message.Body.
func (b *body) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.read(p)
}

func (b *body) read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	if len(p) == 0 {
		return 0, nil
	}
	var n int
	var err error
	if b.framing == framedChunked {
		n, err = b.readChunked(p)
	} else {
		n, err = b.readPlain(p)
	}
	if err != nil {
		b.err = err
		if err == io.EOF {
			b.from.finished()
		}
	}
	return n, err
}

// broken is what an end of the connection means inside of a message.
func broken(err error) error {
	if errors.Is(err, io.EOF) {
		return &message.ResetError{Remote: true}
	}
	return err
}

// readPlain reads content whose end is known by its length, or by the connection's.
func (b *body) readPlain(p []byte) (int, error) {
	if b.framing == framedLength {
		p = p[:min(int64(len(p)), b.left)]
	}
	w := b.from.input()
	n := copy(p, w.buffered())
	w.skip(n)
	var err error
	switch {
	case n > 0:
	case b.framing == framedLength && int64(len(p)) == b.left, len(p) >= directRead:
		// All that is left fits: nothing that follows can be read along.
		n, err = b.from.readInto(p)
	default:
		if _, err = b.from.fill(); err == nil {
			n = copy(p, w.buffered())
			w.skip(n)
		}
	}
	if b.framing == framedClose {
		return n, err
	}
	if b.left -= int64(n); b.left == 0 {
		return n, io.EOF
	}
	if err != nil {
		err = broken(err)
	}
	return n, err
}

// readChunked reads chunks, as much as has come of them. It waits only while it has
// nothing to return.
func (b *body) readChunked(p []byte) (n int, err error) {
	w := b.from.input()
	for {
		var more bool
		switch b.state {
		case chunkSize:
			more, err = b.readSize(w)
		case chunkData:
			if n == len(p) {
				return n, nil
			}
			have := w.buffered()
			if len(have) == 0 && n == 0 && len(p) >= directRead && b.left >= directRead {
				n, err = b.from.readInto(p[:min(int64(len(p)), b.left)])
				if b.left -= int64(n); b.left == 0 {
					b.state = chunkEnd
				}
				if err != nil {
					err = broken(err)
				}
				return n, err
			}
			got := copy(p[n:], have[:min(int64(len(have)), b.left)])
			w.skip(got)
			n += got
			if b.left -= int64(got); b.left == 0 {
				b.state = chunkEnd
			}
			more = got == 0
		case chunkEnd:
			have := w.buffered()
			switch {
			case len(have) > 0 && have[0] != '\r', len(have) > 1 && have[1] != '\n':
				err = message.Malformed("no line break after a chunk")
			case len(have) < 2:
				more = true
			default:
				w.skip(2)
				b.state = chunkSize
			}
		case chunkTrailer:
			more, err = b.readTrailer(w)
		}
		if err != nil || more && n > 0 {
			return n, err
		}
		if more {
			room, err := b.from.fill()
			if err != nil {
				return 0, broken(err)
			}
			if !room {
				return 0, message.Malformed("too long a line between chunks")
			}
		}
	}
}

// readSize reads the line before a chunk. It returns true when more must be read first.
func (b *body) readSize(w *wire) (bool, error) {
	have := w.buffered()
	size, digits := int64(0), 0
	for ; digits < len(have); digits++ {
		v := unhex[have[digits]]
		if v > 15 {
			break
		}
		if digits == maxChunkDigits {
			return false, message.Malformed("too large a chunk")
		}
		size = size<<4 | int64(v)
	}
	if digits == len(have) {
		return true, nil
	}
	// Nothing but an extension may follow, not even white space.
	if c := have[digits]; digits == 0 || c != '\r' && c != ';' {
		return false, message.Malformed("invalid size of a chunk")
	}
	end := bytes.IndexByte(have[:min(len(have), maxChunkLine)], '\r')
	if end < 0 || end+1 == len(have) {
		// Controls are refused as soon as they come: with a bare line feed no end would.
		if !validValue(have[digits:max(end, digits)]) || end < 0 && !validValue(have) {
			return false, message.Malformed("invalid extension of a chunk")
		}
		if len(have) >= maxChunkLine {
			return false, message.Malformed("too long an extension of a chunk")
		}
		return true, nil
	}
	if have[end+1] != '\n' || !validValue(have[digits:end]) {
		return false, message.Malformed("invalid extension of a chunk")
	}
	if b.extensions += end - digits; b.extensions > maxChunkExtensions {
		return false, message.Malformed("too many extensions of chunks")
	}
	w.skip(end + 2)
	b.left, b.state = size, chunkData
	if size == 0 {
		b.state = chunkTrailer
	}
	return false, nil
}

// readTrailer reads what follows the last chunk; the error is io.EOF after it. It
// returns true when more must be read first.
func (b *body) readTrailer(w *wire) (bool, error) {
	have := w.buffered()
	if len(have) >= 2 && have[0] == '\r' && have[1] == '\n' {
		w.skip(2)
		return false, io.EOF
	}
	end, bare := b.empty.find(have)
	if end == 0 {
		if bare {
			return false, message.Malformed("bare line feed in the trailers")
		}
		if len(have) >= maxTrailer {
			return false, &message.ProtocolError{Status: 431, Reason: "too large trailers"}
		}
		return true, nil
	}
	if end > maxTrailer {
		return false, &message.ProtocolError{Status: 431, Reason: "too large trailers"}
	}
	s := sections.Get().(*section)
	defer sections.Put(s)
	lines := have[:end-len(crlf)]
	if err := s.scan(lines); err != nil {
		return false, err
	}
	text := string(lines)
	b.trailer = make(message.Header, 0, s.n)
	for i := range s.n {
		f := s.field(text, i)
		if message.Reserved(f.Name) || f.Name == "te" || f.Name == "trailer" {
			return false, message.Malformed("a field in the trailers that frames messages")
		}
		b.trailer = append(b.trailer, f)
	}
	w.skip(end)
	return false, io.EOF
}

// discard, with b.mu held, reads and forgets the rest of the content, up to limit octets. It reports
// whether that was all.
func (b *body) discard(limit int64) bool {
	if b.framing == framedLength && b.left > limit {
		return false
	}
	scratch := borrow(classMedium)
	defer scratch.release()
	for b.err == nil && limit > 0 {
		n, _ := b.read(scratch.b[:min(limit, int64(len(scratch.b)))])
		limit -= int64(n)
	}
	return b.done()
}

// unhex are the values of hexadecimal digits, 255 for other octets.
var unhex = func() (t [256]uint8) {
	for c := range t {
		t[c] = math.MaxUint8
	}
	for i, c := range []byte("0123456789abcdef") {
		t[c] = uint8(i)
	}
	for i, c := range []byte("ABCDEF") {
		t[c] = uint8(10 + i)
	}
	return t
}()
