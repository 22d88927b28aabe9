package cel

const (
	// MaxBytes bounds the text of one expression: a screen full.
	MaxBytes = 4096
	// maxNodes and maxDepth bound the tree that it is parsed into.
	maxNodes = 1024
	maxDepth = 64
	// maxRegexp bounds a regular expression in instructions of its compiled form.
	maxRegexp = 2048
	// maxCost bounds one evaluation in cel-go's units: a comparison is 1, a look at
	// 10 octets of text 1. The whole is then well under a millisecond, whatever a
	// client sends; conditions as people write them cost less than 100.
	maxCost = 20000
	// maxFields bounds the fields of a header that an expression can go through one by
	// one; looking one up by name has no bound.
	maxFields = 256
)
