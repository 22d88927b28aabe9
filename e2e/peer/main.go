// Command peer is the program that the end-to-end tests run as pods on both sides
// of the mesh: a server of small protocols, each on a port of its own, and a client
// for each, and a server of HTTP and gRPC for other people's clients. It knows
// nothing of the mesh.
package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
)

// commands are the modes of the program; each takes the remaining arguments.
var commands = map[string]func(args []string) error{
	"serve":     serve,
	"echo":      echo,
	"many":      many,
	"greet":     greet,
	"put":       put,
	"get":       get,
	"half":      half,
	"reset":     reset,
	"sniff":     sniff,
	"abort":     abort,
	"hold":      hold,
	"whoami":    whoami,
	"tls-open":  tlsOpen,
	"web":       web,
	"authorize": authorize,
}

func main() {
	if len(os.Args) < 2 || commands[os.Args[1]] == nil {
		var names []string
		for name := range commands {
			names = append(names, name)
		}
		slices.Sort(names)
		fmt.Fprintln(os.Stderr, "usage: peer", strings.Join(names, "|"), "...")
		os.Exit(2)
	}
	if err := commands[os.Args[1]](os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "peer:", err)
		os.Exit(1)
	}
}
