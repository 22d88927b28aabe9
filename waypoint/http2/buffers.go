package http2

import "sync"

// The classes of buffers. None is held while a connection waits with nothing to say;
// they are borrowed when there is something to read or to write and go back at once,
// so their number follows the running goroutines, not the connections.
//
//   - small takes a head, or a message of a gRPC stream;
//   - medium takes a whole frame of the default size, and what comes with it;
//   - large takes what senders gather at most.
const (
	classSmall = iota
	classMedium
	classLarge
	classes
)

var classSize = [classes]int{4 << 10, 32 << 10, maxGathered + 64<<10}

// buffer is a piece of pooled memory.
type buffer struct {
	b     []byte
	class int
}

var bufferPools [classes]sync.Pool

// borrow returns a buffer of the given class; its content is arbitrary.
func borrow(class int) *buffer {
	if b, ok := bufferPools[class].Get().(*buffer); ok {
		return b
	}
	return &buffer{b: make([]byte, classSize[class]), class: class}
}

// borrowFor returns a buffer of the smallest class that holds n octets, or the largest.
func borrowFor(n int) *buffer {
	for class := range classLarge {
		if n <= classSize[class] {
			return borrow(class)
		}
	}
	return borrow(classLarge)
}

// release gives the buffer back. A nil buffer is allowed.
func (b *buffer) release() {
	if b != nil {
		bufferPools[b.class].Put(b)
	}
}
