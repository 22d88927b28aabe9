// Package settings reads what a proxy is started with from its flags and from the
// environment, in which Istio's manifests put the same, and checks what is checked
// of all proxies alike. An error names the flag and the variable.
package settings
