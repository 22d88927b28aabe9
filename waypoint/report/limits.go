package report

import "time"

const (
	// maxSeries, unless the Config says otherwise, bounds the combinations of labels that are told apart, some 3 KiB each with
	// their histograms: labels come from the mesh and must not fill the memory. What is
	// beyond counts as unknown peers'.
	maxSeries = 10000
	// maxHandles bounds what finds series without making labels; it is forgotten whole
	// when it is full, and made again as requests come.
	maxHandles = 40000
	// maxSides bounds the peers that are known by their labels.
	maxSides = 20000
	// maxRoutes bounds the services and routes that are summed up; all beyond are one.
	maxRoutes = 5000
	// idle is after how long without a request a series is forgotten: longer than usual
	// intervals and windows of Prometheus, as ztunnel's.
	idle = time.Hour
	// refresh is after how long handles are made again, so that they follow what the mesh
	// says of its workloads.
	refresh = time.Minute
	// maxTagBytes bounds the value of a label that an expression gives.
	maxTagBytes = 256
	// maxTaps bounds who watches live requests at once, tapQueue what waits for each:
	// some 300 bytes a request.
	maxTaps, tapQueue = 8, 512

	// maxErrorBytes bounds the error of a line, which may quote a peer.
	maxErrorBytes = 1024
)
