package hbone

import "sync"

// The classes of buffers. Nothing holds one while it waits for a socket; they
// are borrowed when there is something to read and go back at once, so their
// number follows the running goroutines, not the connections.
//
//   - small takes a request or an answer;
//   - medium takes one full TLS record (16 KiB and its overhead);
//   - large takes sixteen full records, one system call's worth. Measured on one bulk
//     stream through two proxies, 64 KiB cost 10 % more processor time per byte and
//     1 MiB 12 % less, without a clear gain in throughput; but one burst then keeps
//     the other streams of a tunnel waiting four times as long.
const (
	classSmall = iota
	classMedium
	classLarge
	classes
)

var classSize = [classes]int{4 << 10, 32 << 10, 264 << 10}

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
