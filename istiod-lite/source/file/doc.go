// Package file reads the mesh's objects from a directory, or from one file, of
// Kubernetes YAML and JSON and follows its changes. It owns reading, decoding
// and watching; which kinds there are and what a valid object is belongs to
// package source.
//
// The directory counts as one transaction: when anything in it is wrong, the
// Objects of the last good state stay in force, whole, and Problems says which
// file, object and field is at fault until it is mended. Before the first good
// state there are no Objects at all, so that a policy with a mistake never
// means a mesh without that policy.
//
// What is read: files ending in .yaml, .yml or .json, in the directory and
// below it; names that start with a dot and other endings are passed over.
// Files and directories may be symbolic links, and links may be swapped, as
// Kubernetes does with mounted ConfigMaps. A file may hold several documents,
// and a document may be a v1 List.
//
// Decoding is strict: an unknown field, a field in the wrong case, a key that
// appears twice, a value of the wrong type, an unknown kind and an object that
// exists twice are errors.
//
//	src, err := file.New(file.Config{Path: dir, RootNamespace: "istio-system", Logger: logger})
//	go src.Run(ctx)
//	for range src.Changed() {
//		publish(src.Objects())
//	}
package file
