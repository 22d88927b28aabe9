package cniconf

import "time"

const (
	// tick is the time between two looks at the directory when no event came.
	tick = 10 * time.Second
	// quiet is for how long nothing may happen in the directory before it is read:
	// writers that do not rename write in several steps.
	quiet = 20 * time.Millisecond
	// repairPause is the least time between two writes of the file after the first
	// few, so that a program that deletes it each time (a CNI that tolerates no
	// other file) and we do not keep each other busy.
	repairPause = time.Second
	// freeRepairs may follow each other without the pause.
	freeRepairs = 5
	// maxConf is the size in bytes of the largest configuration that is read.
	maxConf = 1 << 20
)
