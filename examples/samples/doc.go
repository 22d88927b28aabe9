// Command samples has the programs of the examples bookinfo and httpbin in one
// binary: `samples httpbin` and, for the pages of a book, `samples productpage`,
// `details`, `reviews` and `ratings`. None of them knows of a mesh; they pass on the
// header fields by which traces and people are followed.
package main
