package file

import "time"

const (
	// maxFileBytes bounds one file: 20,000 pods as meshctl writes them.
	maxFileBytes = 64 << 20

	// maxDocumentBytes bounds one object; an API server takes 1.5 MiB (etcd's
	// request limit). A List may fill its file.
	maxDocumentBytes = 1536 << 10

	// maxFiles and maxDepth bound the tree; a loop of symbolic links is found
	// before maxDepth, which also bounds honest nesting.
	maxFiles = 100_000
	maxDepth = 16

	// maxNesting bounds the depth of one document, for decoding recurses.
	maxNesting = 64

	// maxProblems bounds how many problems are kept and shown; the first ones
	// matter, and a generator gone wrong makes one for each object.
	maxProblems = 100

	// settle is how long after the first event of a burst the tree is read: long
	// enough for an editor's write-and-rename to be over, short against the
	// 100 ms in which a change has to leave.
	settle = 15 * time.Millisecond

	// defaultPoll is how often the tree is checked besides the events, since
	// network file systems and some overlays send none; without any watch
	// (no inotify instances left) pollUnwatched takes its place.
	defaultPoll   = 5 * time.Second
	pollUnwatched = 250 * time.Millisecond
)
