package control

const (
	// MaxStatePath bounds the state folder's path: the sockets in it must fit a
	// sockaddr_un, which holds 107 bytes and an end mark (unix(7)); the longest
	// is PATH/nodes/node-32/agent.sock.
	MaxStatePath = 107 - len("/nodes/node-32/agent.sock")
	// maxExecMessage bounds one message on exec.sock, command and environment
	// included. It stays below the kernel's default socket buffer (208 KiB), which a
	// message of SOCK_SEQPACKET must fit.
	maxExecMessage = 128 << 10
)
