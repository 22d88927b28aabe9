package meshconfig

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"

	mesh "istio.io/api/mesh/v1alpha1"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"sigs.k8s.io/yaml"
)

// Config is what Tulle reads of a mesh's configuration. It is immutable; the zero value
// is that of a mesh without any.
type Config struct {
	// Providers are the extension providers by their names.
	Providers map[string]*Provider
	// Default are the providers of those that name none; may be nil.
	Default *mesh.MeshConfig_DefaultProviders
	// AccessLog is the mesh's own access log: AccessLogFile, AccessLogFormat and
	// AccessLogEncoding, and nothing else, are set. It may be nil.
	AccessLog *mesh.MeshConfig
	// TrustedProxies are those before a waypoint that are believed about whom a request
	// came from: the mesh's gateway and those before it, whose number
	// defaultConfig.gatewayTopology.numTrustedProxies is. 0 where that is not set.
	TrustedProxies uint32
	// Warnings tell of parts that Tulle does not act on.
	Warnings []string
}

// Provider is one extension provider.
type Provider struct {
	Name string
	// Spec is nil with a Fault.
	Spec *mesh.MeshConfig_ExtensionProvider
	// Fault says why the provider cannot be used; "" when it can.
	Fault string
}

// parts are those of a MeshConfig that are read here.
type parts struct {
	ExtensionProviders []json.RawMessage `json:"extensionProviders"`
	DefaultProviders   json.RawMessage   `json:"defaultProviders"`
	AccessLogFile      json.RawMessage   `json:"accessLogFile"`
	AccessLogFormat    json.RawMessage   `json:"accessLogFormat"`
	AccessLogEncoding  json.RawMessage   `json:"accessLogEncoding"`
	DefaultConfig      struct {
		GatewayTopology struct {
			NumTrustedProxies *uint32 `json:"numTrustedProxies"`
		} `json:"gatewayTopology"`
	} `json:"defaultConfig"`
}

// Parse reads a configuration in YAML or JSON. The error is of one that cannot be read as
// a whole; a provider that cannot be used has its own Fault, and the others count.
func Parse(text string) (*Config, error) {
	if len(text) > maxBytes {
		return nil, fmt.Errorf("is longer than %d bytes", maxBytes)
	}
	raw, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		return nil, err
	}
	var in *parts
	if err := json.Unmarshal(raw, &in); err != nil {
		return nil, err
	}
	out := &Config{Providers: map[string]*Provider{}}
	if in == nil {
		return out, nil
	}
	if n := in.DefaultConfig.GatewayTopology.NumTrustedProxies; n != nil {
		out.TrustedProxies = min(*n, maxProxies) + 1
	}
	if n := len(in.ExtensionProviders); n > maxProviders {
		return nil, fmt.Errorf("extensionProviders: %d entries, more than %d", n, maxProviders)
	}
	for i, raw := range in.ExtensionProviders {
		at := fmt.Sprintf("extensionProviders[%d]", i)
		p, err := provider(raw)
		switch {
		case err != nil:
			return nil, fmt.Errorf("%s: %w", at, err)
		case out.Providers[p.Name] != nil:
			return nil, fmt.Errorf("%s.name: %q is there twice", at, p.Name)
		}
		out.Providers[p.Name] = p
		if p.Fault != "" {
			out.Warnings = append(out.Warnings, fmt.Sprintf("%s: provider %q: %s", at, p.Name, p.Fault))
		}
	}
	if len(in.DefaultProviders) > 0 {
		out.Default = &mesh.MeshConfig_DefaultProviders{}
		if err := decode(in.DefaultProviders, out.Default); err != nil {
			return nil, fmt.Errorf("defaultProviders: %w", err)
		}
	}
	log := map[string]json.RawMessage{}
	for name, raw := range map[string]json.RawMessage{
		"accessLogFile": in.AccessLogFile, "accessLogFormat": in.AccessLogFormat, "accessLogEncoding": in.AccessLogEncoding,
	} {
		if len(raw) > 0 {
			log[name] = raw
		}
	}
	if len(log) > 0 {
		all, err := json.Marshal(log)
		if err != nil {
			return nil, err
		}
		out.AccessLog = &mesh.MeshConfig{}
		if err := decode(all, out.AccessLog); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// provider reads one; the error is of one that has no name.
func provider(raw json.RawMessage) (*Provider, error) {
	var named struct {
		Name string `json:"name"`
	}
	if err := json.Unmarshal(raw, &named); err != nil {
		return nil, err
	}
	if named.Name == "" {
		return nil, fmt.Errorf("name: is missing")
	}
	p := &Provider{Name: named.Name}
	spec := &mesh.MeshConfig_ExtensionProvider{}
	if err := decode(raw, spec); err != nil {
		// One that is not understood in full may do other than its author wants.
		p.Fault = err.Error()
		return p, nil
	}
	if p.Fault = check(spec); p.Fault == "" {
		p.Spec = spec
	}
	return p, nil
}

// decode is strict: an unknown field is an error.
func decode(raw []byte, m proto.Message) error {
	if err := (protojson.UnmarshalOptions{}).Unmarshal(raw, m); err != nil {
		text := strings.ReplaceAll(err.Error(), "\u00a0", " ") // protobuf varies its spaces on purpose
		return fmt.Errorf("%s", strings.TrimSpace(strings.TrimPrefix(text, "proto:")))
	}
	return nil
}

// pattern is a name of a header field, with a star at one end.
var pattern = regexp.MustCompile("^(\\*?[!#$%&'+.^_`|~0-9A-Za-z-]+|[!#$%&'+.^_`|~0-9A-Za-z-]+\\*)$")

// check says why an external authorizer cannot be asked. Other kinds are checked by who
// uses them.
func check(p *mesh.MeshConfig_ExtensionProvider) string {
	switch kind := p.GetProvider().(type) {
	case *mesh.MeshConfig_ExtensionProvider_EnvoyExtAuthzHttp:
		h := kind.EnvoyExtAuthzHttp
		for name, list := range map[string][]string{
			"includeRequestHeadersInCheck": h.GetIncludeRequestHeadersInCheck(), "includeHeadersInCheck": h.GetIncludeHeadersInCheck(), // deprecated and still in use
			"headersToUpstreamOnAllow": h.GetHeadersToUpstreamOnAllow(), "headersToDownstreamOnDeny": h.GetHeadersToDownstreamOnDeny(),
			"headersToDownstreamOnAllow": h.GetHeadersToDownstreamOnAllow(),
		} {
			if len(list) > maxNames {
				return fmt.Sprintf("envoyExtAuthzHttp.%s: more than %d entries", name, maxNames)
			}
			for i, v := range list {
				if !pattern.MatchString(v) {
					return fmt.Sprintf("envoyExtAuthzHttp.%s[%d]: %q is no name of a header field, nor one with a star at one end", name, i, v)
				}
			}
		}
		if p := h.GetPathPrefix(); p != "" && !strings.HasPrefix(p, "/") {
			return fmt.Sprintf("envoyExtAuthzHttp.pathPrefix: %q must begin with a slash", p)
		}
		for name := range h.GetIncludeAdditionalHeadersInCheck() {
			if !pattern.MatchString(name) || strings.Contains(name, "*") {
				return fmt.Sprintf("envoyExtAuthzHttp.includeAdditionalHeadersInCheck: %q is no name of a header field", name)
			}
		}
		return common("envoyExtAuthzHttp", h.GetService(), h.GetPort(), h.GetStatusOnError())
	case *mesh.MeshConfig_ExtensionProvider_EnvoyExtAuthzGrpc:
		g := kind.EnvoyExtAuthzGrpc
		return common("envoyExtAuthzGrpc", g.GetService(), g.GetPort(), g.GetStatusOnError())
	case nil:
		return "has no provider"
	}
	return ""
}

func common(kind, service string, port uint32, status string) string {
	namespace, host, ok := strings.Cut(service, "/")
	switch {
	case service == "":
		return kind + ".service: is missing"
	case ok && (namespace == "" || host == "" || strings.Contains(host, "/")):
		return fmt.Sprintf("%s.service: %q must be [namespace/]hostname", kind, service)
	case port == 0 || port > 65535:
		return fmt.Sprintf("%s.port: %d must be between 1 and 65535", kind, port)
	}
	if status != "" {
		if _, ok := Status(status); !ok {
			return fmt.Sprintf("%s.statusOnError: %q is no status between 200 and 599", kind, status)
		}
	}
	return ""
}

// Status reads a status of HTTP.
func Status(s string) (uint32, bool) {
	if len(s) != 3 || s[0] < '2' || s[0] > '5' || s[1] < '0' || s[1] > '9' || s[2] < '0' || s[2] > '9' {
		return 0, false
	}
	return uint32(s[0]-'0')*100 + uint32(s[1]-'0')*10 + uint32(s[2]-'0'), true
}
