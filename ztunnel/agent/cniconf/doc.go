// Package cniconf puts the mesh's CNI plugin into a node's chain of plugins and
// keeps it there.
//
// A runtime takes the first file of its configuration directory in lexical
// order. The package writes a file of its own that sorts first: a copy of what
// was first before, with the mesh's plugin as the last of the chain. The other
// file stays as it is. So a network plugin that writes its file again, at every
// start of the node perhaps, does not take the mesh out of the chain, not for a
// moment; the copy follows it. And to take the mesh out means to delete a file.
//
// A directory that changes is looked at again at once, and every few seconds in
// any case. A file that is not understood, half written perhaps, changes
// nothing. When there is no other file any more, the copy stays: without it
// there would be a moment without the mesh when the other one comes back.
//
// The plugin's program is put into the directory of plugins in the same way:
// written under another name, then renamed.
package cniconf
