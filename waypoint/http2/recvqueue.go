package http2

// recvQueue holds the octets of a stream that its reader has not taken yet. Flow
// control bounds it by the stream's window. The zero value is empty.
type recvQueue struct {
	chunks []*buffer
	few    [2]*buffer // what chunks begins in: most contents need no more
	// head is where the first chunk's data begins, tail where the last one's ends.
	head, tail int
	size       int
}

func (q *recvQueue) empty() bool { return q.size == 0 }

// push copies p to the end. Chunks are chosen by what comes, and filled up before
// another is taken, so that many small frames cost no more than one large one.
func (q *recvQueue) push(p []byte) {
	q.size += len(p)
	for len(p) > 0 {
		if len(q.chunks) == 0 || q.tail == len(q.chunks[len(q.chunks)-1].b) {
			class := classSmall
			if len(p) > classSize[classSmall] || len(q.chunks) > 1 {
				class = classMedium
			}
			if len(q.chunks) == 0 {
				q.chunks = q.few[:0]
			}
			q.chunks = append(q.chunks, borrow(class))
			q.tail = 0
		}
		n := copy(q.chunks[len(q.chunks)-1].b[q.tail:], p)
		q.tail += n
		p = p[n:]
	}
}

// front returns the first contiguous octets, nil when the queue is empty.
func (q *recvQueue) front() []byte {
	switch len(q.chunks) {
	case 0:
		return nil
	case 1:
		return q.chunks[0].b[q.head:q.tail]
	default:
		return q.chunks[0].b[q.head:]
	}
}

// pop removes n octets, at most len(front()).
func (q *recvQueue) pop(n int) {
	q.head += n
	q.size -= n
	end := q.tail
	if len(q.chunks) > 1 {
		end = len(q.chunks[0].b)
	}
	if q.head < end {
		return
	}
	q.chunks[0].release()
	q.chunks[0] = nil
	q.chunks = q.chunks[1:]
	q.head = 0
	if len(q.chunks) == 0 {
		q.chunks, q.tail = nil, 0
	}
}

// clear gives all memory back.
func (q *recvQueue) clear() {
	for _, b := range q.chunks {
		b.release()
	}
	*q = recvQueue{}
}
