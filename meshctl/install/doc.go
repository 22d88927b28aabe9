// Package install puts a mesh into a cluster, changes it and takes it out. What a
// mesh consists of is package manifests'; this package applies it in an order in
// which nothing waits for what comes later, remembers in the cluster what it applied,
// and tells why something is not ready.
//
//	mesh := install.Mesh{Client: client, Say: func(line string) { fmt.Println(line) }}
//	report, err := mesh.Install(ctx, install.Options{Version: "1.0.0", Wait: 5 * time.Minute})
//
// Objects are written with server-side apply: fields of others are left alone, and a
// field that somebody else has set is an error that names both.
//
// A Mesh holds no goroutine. Its methods block until they are done, their time is
// over, or ctx ends; one mesh must not be changed by two of them at once.
package install
