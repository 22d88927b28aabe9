package cni

import "time"

const (
	// addTimeout bounds ADD. The agent waits for ztunnel's acknowledgement for up to
	// 30 s and for the API server before; the kubelet waits for 4 minutes.
	addTimeout = 60 * time.Second
	// delTimeout bounds DEL and CHECK, which need nothing but the agent.
	delTimeout = 10 * time.Second
	// maxAnswer is the size in bytes of the longest answer that is read.
	maxAnswer = 64 << 10
	// MaxRequest is the size in bytes of the largest request: names, a path of 4096
	// bytes and some addresses.
	MaxRequest = 32 << 10
	// maxAddresses bounds the addresses of one pod.
	maxAddresses = 16
)
