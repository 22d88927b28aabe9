package mesh

import "time"

const (
	// answerTimeout bounds one question to a component. A config_dump of 10,000
	// workloads takes a ztunnel some 100 ms and a slow API server's port-forward
	// some seconds to carry.
	answerTimeout = 20 * time.Second
	// maxAnswerBytes bounds one answer: a config_dump of 100,000 workloads has
	// about 100 MB.
	maxAnswerBytes = 512 << 20
	// askAtOnce is how many components are asked at the same time: every question is
	// a port-forward through the API server.
	askAtOnce = 8
	// pageObjects is how many objects a list asks the API server for at a time.
	pageObjects = 500
)
