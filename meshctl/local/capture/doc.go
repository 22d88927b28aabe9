// Package capture looks at the packets of one link and counts what goes over
// it, by transport and port; it can search their payload for a text. It is the
// evidence for "nothing is in plaintext" without a tcpdump on the machine.
//
// It must run inside the network namespace of the link (`meshctl local exec
// --node`), and needs CAP_NET_RAW there.
package capture
