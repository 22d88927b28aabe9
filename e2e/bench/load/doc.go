// Package load generates the traffic that is measured and answers it. Both ends
// are processes of their own inside the pods, and share no code with the proxies.
//
// The first byte of a connection says what it is for, so that one port serves
// every measure: the server reads, writes, or answers accordingly.
package load
