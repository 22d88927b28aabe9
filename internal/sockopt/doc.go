// Package sockopt sets the socket options of the data path and reads the
// original destination of redirected connections.
//
// It owns the numbers: option levels for IPv4 and IPv6, and the marks by which
// the rules in a pod (ztunnel/redirect) tell the proxy's packets from the
// application's. It opens no sockets itself; options are applied to sockets of
// net.Dialer and net.ListenConfig through Control, or to a plain descriptor
// through Apply.
//
//	d := net.Dialer{Control: sockopt.Control(sockopt.Mark(sockopt.MarkProxy), sockopt.NoDelay())}
package sockopt
