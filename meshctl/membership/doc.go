// Package membership takes namespaces into the mesh and out of it, and tells of each
// pod whether it is in, and if not, why. It writes one label and reads what the nodes'
// agents wrote; what a pod's traffic does is theirs.
//
//	namespaces, err := membership.List(ctx, client, "shop")
//	for _, n := range namespaces {
//		fmt.Println(n.Name, n.In, n.Pending, n.Out)
//	}
package membership
