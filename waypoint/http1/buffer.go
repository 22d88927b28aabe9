package http1

import "sync"

// The classes of buffers.
//
//   - idle is what a server waits for a request with, and takes most of them: heads
//     of machines have 200 to 900 octets;
//   - small takes a larger head, and a small response with its content;
//   - medium takes content;
//   - large takes the largest head.
const (
	classIdle = iota
	classSmall
	classMedium
	classLarge
	classes
)

var classSize = [classes]int{1 << 10, 4 << 10, 16 << 10, maxHead}

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

// borrowFor returns a buffer of the smallest class that holds n octets, nil without one.
func borrowFor(n int) *buffer {
	for class := range classes {
		if n <= classSize[class] {
			return borrow(class)
		}
	}
	return nil
}

// release gives the buffer back. A nil buffer is allowed.
func (b *buffer) release() {
	if b != nil {
		bufferPools[b.class].Put(b)
	}
}
