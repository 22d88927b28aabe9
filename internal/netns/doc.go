// Package netns holds Linux network namespaces by descriptor and runs code
// inside them.
//
// It owns the descriptors, their identity and the rules for threads: a thread
// that entered another namespace and could not be brought back is never given
// back to the Go scheduler. It does not own what happens inside a namespace:
// links, routes and rules belong to its callers.
//
// A namespace lives as long as somebody holds it: a process in it, a mount, a
// socket made in it, or an open NS. Closing an NS ends only our own hold.
//
//	ns, err := netns.Open("/var/run/netns/web")
//	if err != nil { … }
//	defer ns.Close()
//	err = ns.Do(func() error {
//		ln, err = net.Listen("tcp", "127.0.0.1:80") // lives in web's namespace
//		return err
//	})
//
// Everything works as root in a user namespace too, as long as the network
// namespaces that are entered belong to that user namespace.
package netns
