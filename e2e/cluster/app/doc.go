// Command app is what the tests run in pods: servers that tell who they are and
// whom they saw, and clients that count exactly what became of every request.
//
//	app serve                  HTTP, TCP echo and a server that speaks first, until SIGTERM
//	app get URL                one request on a new connection; prints the answer
//	app load --url URL         a new connection per request, or --connections; prints counts as JSON
//	app hold --addr HOST:PORT  one connection that echoes for as long as it lives
//	app resolve NAME           the addresses of a name
//
// A pod of the tests runs `app serve`; clients run in it, or in another:
//
//	kubectl exec -n NAMESPACE POD -- app get http://SERVICE.NAMESPACE:8080/
//
// The program is /usr/local/bin/app of its image, which has no shell.
//
// load and hold also run as jobs of a pod that serves, so that a test can look at
// and end them: `app start load …` prints an id, `app peek ID` what is counted so
// far, `app stop ID` ends the job and prints the final counts.
//
// Exit codes: 0 all is well; 1 the request failed or some of a load's requests
// did; 2 the command line is wrong.
package main
