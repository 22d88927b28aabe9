// Package hpack compresses and decompresses the header blocks of HTTP/2 (RFC 7541).
//
// A Decoder makes one string of each block, from which all names and values are cut,
// however many fields there are: its dynamic table is a piece of memory of fixed
// size, and what a block refers to is copied out of it. So a head may be kept as
// long as anybody likes and pins nothing of the connection, and nothing is allocated
// for what the peer puts into the table.
//
// An Encoder puts into the table what it sees for the second time. What differs from
// message to message (identifiers, paths, dates) never gets there and drives out
// nothing that repeats.
//
//	fields, err := dec.Decode(block, fields[:0])
//	…
//	b = enc.Begin(b)
//	b = enc.Append(b, ":status", "200")
package hpack
