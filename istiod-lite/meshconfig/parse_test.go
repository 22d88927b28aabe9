package meshconfig_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/istiod-lite/meshconfig"
)

// example is a configuration as Istio's documentation has it, with what Tulle does not
// read.
const example = `
accessLogFile: /dev/stdout
accessLogEncoding: JSON
defaultConfig:
  discoveryAddress: istiod.istio-system.svc:15012
  tracing: {}
  gatewayTopology: {numTrustedProxies: 2}
defaultProviders:
  metrics: [prometheus]
  tracing: [otel]
enablePrometheusMerge: true
rootNamespace: istio-system
extensionProviders:
- name: prometheus
  prometheus: {}
- name: otel
  opentelemetry:
    service: otel.observability.svc.cluster.local
    port: 4317
- name: authz-grpc
  envoyExtAuthzGrpc:
    service: authz.auth.svc.cluster.local
    port: 9000
    timeout: 0.25s
    failOpen: true
    statusOnError: "503"
    includeRequestBodyInCheck: {maxRequestBytes: 1024, allowPartialMessage: true, packAsBytes: true}
- name: authz-http
  envoyExtAuthzHttp:
    service: auth/authz.example.com
    port: 8000
    pathPrefix: /check
    includeRequestHeadersInCheck: [cookie, "X-Team-*"]
    includeAdditionalHeadersInCheck: {X-From: mesh}
    headersToUpstreamOnAllow: [authorization, x-user]
    headersToDownstreamOnDeny: [set-cookie]
    headersToDownstreamOnAllow: ["*-seen"]
trustDomain: cluster.local
`

func TestAConfigurationIsRead(t *testing.T) {
	c, err := meshconfig.Parse(example)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Providers) != 4 || c.TrustedProxies != 3 || len(c.Warnings) != 0 || !slices.Equal(c.Default.GetTracing(), []string{"otel"}) || c.AccessLog.GetAccessLogFile() != "/dev/stdout" ||
		c.AccessLog.GetAccessLogEncoding().String() != "JSON" {
		t.Errorf("%+v", c)
	}
	if g := c.Providers["authz-grpc"].Spec.GetEnvoyExtAuthzGrpc(); g.GetTimeout().AsDuration() != 250*time.Millisecond || !g.GetFailOpen() || g.GetIncludeRequestBodyInCheck().GetMaxRequestBytes() != 1024 {
		t.Errorf("%v", g)
	}
	if h := c.Providers["authz-http"].Spec.GetEnvoyExtAuthzHttp(); h.GetPort() != 8000 || len(h.GetHeadersToUpstreamOnAllow()) != 2 {
		t.Errorf("%v", h)
	}
	for _, empty := range []string{"", "{}", "null", "# nothing"} {
		if c, err := meshconfig.Parse(empty); err != nil || len(c.Providers) != 0 {
			t.Errorf("%q: %v, %v", empty, c, err)
		}
	}
}

func TestAProviderThatIsNotUnderstoodIsFaultyAndTheOthersCount(t *testing.T) {
	for spec, want := range map[string]string{
		"envoyExtAuthzGrpc: {service: a.b, port: 1, failopen: true}":                  `unknown field "failopen"`,
		"envoyExtAuthzGrpc: {port: 1}":                                                "service: is missing",
		"envoyExtAuthzGrpc: {service: a.b}":                                           "port: 0",
		"envoyExtAuthzGrpc: {service: a/b/c, port: 1}":                                "[namespace/]hostname",
		`envoyExtAuthzGrpc: {service: a.b, port: 1, statusOnError: "99"}`:             "no status",
		"envoyExtAuthzHttp: {service: a.b, port: 1, pathPrefix: x}":                   "begin with a slash",
		"envoyExtAuthzHttp: {service: a.b, port: 1, headersToUpstreamOnAllow: [a b]}": "headersToUpstreamOnAllow[0]",
		"envoyExtAuthzHttp: {service: a.b, port: 1, timeout: soon}":                   "Duration",
		"{}": "has no provider",
	} {
		c, err := meshconfig.Parse("extensionProviders:\n- {name: good, prometheus: {}}\n- name: bad\n  " + strings.TrimSuffix(spec, "{}") + "\n")
		if err != nil {
			t.Errorf("%s: %v", spec, err)
			continue
		}
		if p := c.Providers["bad"]; p == nil || p.Spec != nil || !strings.Contains(p.Fault, want) || len(c.Warnings) != 1 {
			t.Errorf("%s: %+v", spec, p)
		}
		if c.Providers["good"].Fault != "" {
			t.Errorf("%s: the good one is faulty", spec)
		}
	}
}

func TestWhatCannotBeReadAsAWholeIsAnError(t *testing.T) {
	for text, want := range map[string]string{
		"a: [":                                   "yaml",
		"[]":                                     "cannot unmarshal",
		"extensionProviders: {}":                 "extensionProviders",
		"extensionProviders: [{prometheus: {}}]": "extensionProviders[0]: name: is missing",
		"extensionProviders: [{name: a}, {name: a}]": `"a" is there twice`,
		"defaultProviders: {traces: [a]}":            `defaultProviders: `,
		"accessLogEncoding: XML":                     "XML",
		strings.Repeat("#", 1<<20+1):                 "longer than",
	} {
		if _, err := meshconfig.Parse(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: %v", text, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(example)
	f.Add("extensionProviders: [{name: a, envoyExtAuthzHttp: {}}]")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := meshconfig.Parse(text)
		if err != nil {
			return
		}
		for name, p := range c.Providers {
			if p.Name != name || (p.Spec == nil) == (p.Fault == "") {
				t.Errorf("%+v", p)
			}
		}
	})
}
