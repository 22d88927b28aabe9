package translate

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	security "istio.io/api/security/v1beta1"

	mesh "istio.io/api/mesh/v1alpha1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	apiwaypoint "github.com/tulle-mesh/tulle/api/waypoint"
	"github.com/tulle-mesh/tulle/istiod-lite/meshconfig"
	"github.com/tulle-mesh/tulle/istiod-lite/source"
)

// meshConfigKey is the key of the ConfigMap under which the mesh's configuration is.
const meshConfigKey = "mesh"

// meshConfigName is the ConfigMap of the mesh's configuration.
func (o Options) meshConfigName() source.Name {
	return source.Name{Namespace: o.RootNamespace, Name: source.MeshConfigMap}
}

// Providers are the extension providers of one state of a mesh.
type Providers struct {
	options Options
	objects *source.Objects
	config  *meshconfig.Config
	// err is why the configuration of this state could not be read; config is then one
	// from before, or empty.
	err error
}

// ProvidersOf reads the providers of a mesh.
func ProvidersOf(objects *source.Objects, options Options) *Providers {
	return (&Providers{options: options.withDefaults(), config: &meshconfig.Config{}}).in(objects)
}

// in returns the providers of the next state, with the configuration of the last one that
// could be read.
func (p *Providers) in(objects *source.Objects) *Providers {
	out := &Providers{options: p.options, objects: objects, config: p.config, err: p.err}
	name := p.options.meshConfigName()
	is := objects.ConfigMaps[name]
	if p.objects != nil && p.objects.ConfigMaps[name] == is {
		return out
	}
	out.err = nil
	if is == nil {
		out.config = &meshconfig.Config{}
		return out
	}
	config, err := meshconfig.Parse(is.Data[meshConfigKey])
	if err != nil {
		out.err = err
		return out
	}
	out.config = config
	return out
}

// Config is the mesh's configuration; never nil.
func (p *Providers) Config() *meshconfig.Config { return p.config }

// warnings tell what of the mesh's configuration is not in force.
func (p *Providers) warnings() []Warning {
	object := "ConfigMap " + p.options.meshConfigName().String()
	var out []Warning
	if p.err != nil {
		out = append(out, Warning{Object: object, Message: meshConfigKey + ": cannot be read, and the configuration from before stays in force: " + p.err.Error()})
	}
	for _, w := range p.config.Warnings {
		out = append(out, Warning{Object: object, Message: meshConfigKey + ": " + w})
	}
	return out
}

// Fault says why nobody can be asked by a CUSTOM policy, "" where somebody can or the
// policy is another one. It is a clause for people.
func (p *Providers) Fault(ap *securityv1.AuthorizationPolicy) string {
	if ap.Spec.Action != security.AuthorizationPolicy_CUSTOM {
		return ""
	}
	_, fault := p.externalAuth(ap.Spec.GetProvider().GetName())
	return fault
}

// externalAuth is how the provider of a CUSTOM policy is asked; nil with a fault.
func (p *Providers) externalAuth(name string) (*apiwaypoint.ExternalAuth, string) {
	provider := p.config.Providers[name]
	if provider == nil {
		return nil, fmt.Sprintf("no provider %q of external authorization is known", name)
	}
	if provider.Fault != "" {
		return nil, fmt.Sprintf("the provider %q cannot be used: %s", name, provider.Fault)
	}
	out := &apiwaypoint.ExternalAuth{Name: name}
	var service string
	var port uint32
	switch kind := provider.Spec.GetProvider().(type) {
	case *mesh.MeshConfig_ExtensionProvider_EnvoyExtAuthzGrpc:
		g := kind.EnvoyExtAuthzGrpc
		service, port = g.GetService(), g.GetPort()
		out.Grpc, out.FailOpen, out.ClearRouteCache = true, g.GetFailOpen(), g.GetClearRouteCache()
		out.StatusOnError, _ = meshconfig.Status(g.GetStatusOnError())
		if d := g.GetTimeout(); d != nil {
			out.Timeout = durationpb.New(d.AsDuration())
		}
		withBody(out, g.GetIncludeRequestBodyInCheck())
	case *mesh.MeshConfig_ExtensionProvider_EnvoyExtAuthzHttp:
		h := kind.EnvoyExtAuthzHttp
		service, port = h.GetService(), h.GetPort()
		out.FailOpen, out.ClearRouteCache, out.PathPrefix = h.GetFailOpen(), h.GetClearRouteCache(), h.GetPathPrefix()
		out.StatusOnError, _ = meshconfig.Status(h.GetStatusOnError())
		if d := h.GetTimeout(); d != nil {
			out.Timeout = durationpb.New(d.AsDuration())
		}
		out.AllowedHeaders = lower(slices.Concat(h.GetIncludeRequestHeadersInCheck(), h.GetIncludeHeadersInCheck())) // the latter is deprecated and in use
		out.AllowedResponseHeaders, out.AllowedDenialHeaders = lower(h.GetHeadersToUpstreamOnAllow()), lower(h.GetHeadersToDownstreamOnDeny())
		out.AllowedClientHeaders = lower(h.GetHeadersToDownstreamOnAllow())
		for _, k := range slices.Sorted(maps.Keys(h.GetIncludeAdditionalHeadersInCheck())) {
			out.AddedHeaders = append(out.AddedHeaders, &apiwaypoint.HeaderField{Name: strings.ToLower(k), Value: h.GetIncludeAdditionalHeadersInCheck()[k]})
		}
		withBody(out, h.GetIncludeRequestBodyInCheck())
	default:
		return nil, fmt.Sprintf("the provider %q is not one of external authorization", name)
	}
	at, fault := p.service(service, port)
	if fault != "" {
		return nil, fmt.Sprintf("the provider %q cannot be asked: %s", name, fault)
	}
	out.Backend = &apiwaypoint.Backend{Service: at, Port: port, Weight: 1}
	return out, ""
}

func withBody(out *apiwaypoint.ExternalAuth, body *mesh.MeshConfig_ExtensionProvider_EnvoyExternalAuthorizationRequestBody) {
	out.MaxBodyBytes, out.PartialBody, out.RawBody = body.GetMaxRequestBytes(), body.GetAllowPartialMessage(), body.GetPackAsBytes()
}

// service finds the service that a provider names as [namespace/]hostname.
func (p *Providers) service(text string, port uint32) (string, string) {
	namespace, host, ok := strings.Cut(text, "/")
	if !ok {
		namespace, host = "", text
	}
	if name, ok := p.options.serviceOf(host); ok && (namespace == "" || namespace == name.Namespace) {
		svc := p.objects.Services[name]
		if svc == nil {
			return "", fmt.Sprintf("Service %s does not exist", name)
		}
		for _, sp := range svc.Spec.Ports {
			if uint32(sp.Port) == port {
				return serviceName(name.Namespace, host), ""
			}
		}
		return "", fmt.Sprintf("Service %s has no port %d", name, port)
	}
	for _, name := range slices.SortedFunc(maps.Keys(p.objects.ServiceEntries), compareNames) {
		se := p.objects.ServiceEntries[name]
		if namespace != "" && namespace != name.Namespace || !slices.Contains(se.Spec.Hosts, host) {
			continue
		}
		for _, sp := range se.Spec.Ports {
			if sp.GetNumber() == port {
				return serviceName(name.Namespace, host), ""
			}
		}
		return "", fmt.Sprintf("ServiceEntry %s has no port %d", name, port)
	}
	return "", fmt.Sprintf("no service has the hostname %s", host)
}

// updateProviders finds the CUSTOM policies whose providers are asked otherwise by now.
func (t *Translator) updateProviders(u *update) {
	was := t.providers
	t.providers = was.in(u.objects)
	changed := t.providers.config != was.config || (t.providers.err == nil) != (was.err == nil)
	if changed {
		t.out.warned, u.providers = true, true
		u.all = u.all || t.providers.config.TrustedProxies != was.config.TrustedProxies
	}
	if !changed && len(u.namespaces) == 0 {
		return
	}
	for name, memo := range t.policies {
		if memo.policy.Spec.Action != security.AuthorizationPolicy_CUSTOM {
			continue
		}
		auth, fault := t.providers.externalAuth(memo.policy.Spec.GetProvider().GetName())
		if fault != memo.fault || !proto.Equal(auth, memo.auth) {
			u.dirtyPolicies[name] = true
		}
	}
}
