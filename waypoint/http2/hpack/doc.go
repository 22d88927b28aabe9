// Package hpack compresses and decompresses the header blocks of HTTP/2 (RFC 7541).
//
// A Decoder makes one string of each block, from which all names and values are cut,
// however many fields there are: its dynamic table is a piece of memory of fixed
// size, and what a block refers to is copied out of it. So a head may be kept as
// long as anybody likes and pins nothing of the connection, and nothing is allocated
// for what the peer puts into the table.
//
// The mark of a literal that must never go to a table (RFC 7541, 6.2.3) is not carried
// from a Decoder to an Encoder: messages have no place for it. The fields that are
// known to hold secrets are always sent with it.
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
