package logformat

const (
	// MaxBytes bounds a format: some 40 times the longest that Istio ships.
	MaxBytes = 32 << 10
	// maxParts bounds the texts and commands of one, each of which every line pays for.
	maxParts = 512
	// maxValueBytes bounds one value, unless the format says less: a line must not be made
	// of one field of a request.
	maxValueBytes = 8 << 10
)
