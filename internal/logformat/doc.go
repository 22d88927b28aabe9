// Package logformat reads Envoy's format of access lines, text with commands such as
// %RESPONSE_CODE% and %REQ(USER-AGENT)%, and writes lines by it.
//
// It owns the form and the commands that there are; the values belong to who writes. The
// control plane reads a format to say what is wrong with it, the waypoint to write with
// it: both by this package, so that what one accepts the other understands. A Format is
// immutable and safe for concurrent use.
//
//	f, err := logformat.Parse("%REQ(:METHOD)% %REQ(:PATH)% %RESPONSE_CODE%\n")
//	line = f.Append(line, values)
package logformat
