// Package message holds the values that all parts of a waypoint share: the heads
// of HTTP requests and responses, their normal form, and the shapes of what the
// codecs of HTTP/1.1 and HTTP/2 offer. It does no I/O and knows no version of the
// protocol.
//
// There is one normal form of a request, and every part decides on it: what was
// routed is what policies judged and what the application gets. What two parsers
// could read differently is refused by the codecs and never gets here.
//
// All text of a head is cut from one string, so that its parts may be kept as long
// as anybody likes.
package message
