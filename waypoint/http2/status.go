package http2

import "strconv"

var statusTexts = func() (t [600]string) {
	for i := 100; i < len(t); i++ {
		t[i] = strconv.Itoa(i)
	}
	return t
}()

// statusText returns the digits of a status from 100 to 599.
func statusText(status int) string { return statusTexts[status] }
