package kube

import "time"

const (
	// connectTimeout bounds the question whether the API server answers at all. A
	// server across the world behind a proxy needs about one second.
	connectTimeout = 10 * time.Second
	// queriesPerSecond and burst are what one command may ask of the API server.
	// client-go's default of 5 makes an installation of some 40 objects wait for
	// itself; the server's own fairness protects it.
	queriesPerSecond = 100
	burst            = 200
	// maxRefusalBytes bounds what a pod's port-forward may say about why it failed.
	maxRefusalBytes = 4 << 10
	// refusalWait is how long the end of a forwarded stream waits for the reason,
	// which the kubelet sends at the same time on another stream.
	refusalWait = 200 * time.Millisecond
)
