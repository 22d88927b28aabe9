// Package check says whether a mesh is healthy: a list of checks in categories,
// each passed, warned or failed with what is wrong and what to do. It reads only;
// what it looks at are the API server's objects, the components' own debug pages,
// and, without a cluster, the local mesh.
//
//	report := check.Run(ctx, m, check.Options{}, func(r check.Result) { fmt.Println(r) })
//	if report.Outcome == check.Failed { … }
//
// A check whose question cannot be asked (a missing right, a component that does
// not answer) does not pass: it warns or fails with the reason.
package check
