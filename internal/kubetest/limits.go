package kubetest

import "time"

const (
	// startAttempts bounds the attempts to find ports that nobody takes between
	// their choice and their use.
	startAttempts = 3

	// readyTimeout bounds one start. The API is up within 5 s on an idle machine
	// with two cores; tests of many packages share them.
	readyTimeout = 90 * time.Second

	// readyInterval spaces the questions whether it is.
	readyInterval = 100 * time.Millisecond

	// stopGrace is how long a process may take to end before it is killed. What
	// it would still write is thrown away anyhow.
	stopGrace = 5 * time.Second

	// logTail bounds what an error shows of a process's log.
	logTail = 2 << 10

	// certificateLife outlasts any test.
	certificateLife = 48 * time.Hour
)
