// Package repocheck holds what every change must keep true of the repository as
// a whole: which way imports run, that each package says what it is for, that
// code is formatted, and that documentation names the metrics, flags and ports
// that the code has. It has tests only.
package repocheck
