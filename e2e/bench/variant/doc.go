// Package variant starts and stops what is measured: nothing at all, a plain
// relay, HAProxy, and Tulle.
package variant
