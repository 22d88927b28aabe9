// Package rawio reads and writes sockets at once or not at all, without telling Go's
// scheduler, for proxies whose work is many short system calls.
//
// Before a system call the scheduler makes ready to give the processor to another thread,
// should the call last. In a process that is idle now and then this wakes a thread which
// looks after that 50 times at intervals of 20 µs: at 1,000 requests a second that was
// 14 % of the CPU of a waypoint. A call that cannot wait needs none of this.
//
// What it calls copies what is there, or what fits, and returns: it keeps its processor
// for that time, tens of microseconds for what a socket takes at once. It must not be
// used for anything but sockets.
//
//	err := rawConn.Read(func(fd uintptr) bool {
//		n, err = rawio.Read(int(fd), p)
//		return err != syscall.EAGAIN
//	})
package rawio
