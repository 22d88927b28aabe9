// Package leases tests the two ends of leases of rate limits together: the control
// plane that shares limits out, and waypoints' limiters that go by their shares.
package leases
