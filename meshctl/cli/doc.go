// Package cli is meshctl's commands: flags, words and tables. What a command
// does is done by the packages that it calls. docs/cli.md describes every
// command; a test holds the two together.
package cli
