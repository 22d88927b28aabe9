package manifest

const (
	// maxFileBytes bounds one file. The API server's own limit for one object is
	// 1.5 MiB; a file may hold several.
	maxFileBytes = 16 << 20
	// maxDocuments bounds the objects of one mesh, so that a wrong -f (a folder
	// of something else) ends with a message and not with a machine full of
	// processes.
	maxDocuments = 20000
)
