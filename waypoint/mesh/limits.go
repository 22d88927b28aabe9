package mesh

import "time"

// arrival is how long a request waits for a service that was asked for and has not come:
// the control plane answers within some tens of milliseconds.
const arrival = time.Second

// maxTableSize keeps what a resource says of the size of a hash table within an int;
// upstream has bounds of its own.
const maxTableSize = 1 << 30

// handshakeTimeout bounds the TLS handshake with an application, as the one of a tunnel
// is bounded with its dialing.
const handshakeTimeout = 10 * time.Second
