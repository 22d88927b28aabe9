// Package carriertest is the one suite of tests that every carrier of tunnels
// passes: HTTP/2 in internal/hbone and HTTP/3 in internal/hbone/h3. It owns what
// streams and tunnels promise; each carrier tests its own wire format itself.
//
//	func TestCarrier(t *testing.T) {
//		carriertest.Run(t, func(t *testing.T, h hbone.Handler) carriertest.Pair { … })
//	}
package carriertest
