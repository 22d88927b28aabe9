// Package forward lives through one request at a waypoint: it asks the policies,
// follows the route, picks a backend and an endpoint of it, sends the request there,
// again if that is safe and worth it, and carries the response back.
//
// It owns none of what it asks: routes, policies, endpoints and connections belong to
// others. Nothing is sent to an application before authz/request has permitted the
// request: what sends it takes the permit as a value.
package forward
