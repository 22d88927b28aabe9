// Package stock is the example shop's inventory: how many there are of each
// item, over a protocol of lines on TCP, in which the server speaks first.
//
//	server: stock ready
//	client: LIST
//	server: apple 40
//	server: pear 25
//	server: .
//	client: TAKE apple 2 for a birthday
//	server: ok 38
//	client: TAKE apple 99 for a wedding
//	server: error only 38 left
//
// It is an example: it keeps everything in memory and trusts whoever connects.
// Who may connect is for the mesh to say.
package stock
