// Package cel evaluates expressions of the Common Expression Language
// (https://cel.dev) on what is known of a request: conditions of policies, filters of
// access logs, values of metrics' labels.
//
// It owns the words that expressions may use and what an evaluation may cost; whoever
// evaluates owns the values behind the words, and says what an error means to him. An
// expression is compiled once, with its types checked, and may then be evaluated by
// many goroutines at once.
//
//	p, err := cel.Conditions.Compile(`request.method == "GET" && request.headers["x-team"] in ["a", "b"]`)
//	holds, err := p.Holds(request)
package cel
