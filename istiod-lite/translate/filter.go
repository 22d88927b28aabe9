package translate

import (
	"fmt"
	"strings"
	"time"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"google.golang.org/protobuf/types/known/durationpb"

	apiwaypoint "github.com/tulle-mesh/tulle/api/waypoint"
)

// filter returns nil and no fault for a mirror whose backend is not there: the
// Gateway API has it left out, and the route's status tells.
func (c *routeCompiler) filter(from Referrer, f *gatewayv1.HTTPRouteFilter) (*apiwaypoint.Filter, string) {
	missing := func() (*apiwaypoint.Filter, string) {
		return nil, fmt.Sprintf("the filter %s lacks what it should do", f.Type)
	}
	switch f.Type {
	case gatewayv1.HTTPRouteFilterRequestHeaderModifier:
		if f.RequestHeaderModifier == nil {
			return missing()
		}
		return &apiwaypoint.Filter{Kind: &apiwaypoint.Filter_RequestHeaders{RequestHeaders: headerChange(f.RequestHeaderModifier)}}, ""
	case gatewayv1.HTTPRouteFilterResponseHeaderModifier:
		if f.ResponseHeaderModifier == nil {
			return missing()
		}
		return &apiwaypoint.Filter{Kind: &apiwaypoint.Filter_ResponseHeaders{ResponseHeaders: headerChange(f.ResponseHeaderModifier)}}, ""
	case gatewayv1.HTTPRouteFilterRequestRedirect:
		if f.RequestRedirect == nil {
			return missing()
		}
		return redirect(f.RequestRedirect)
	case gatewayv1.HTTPRouteFilterURLRewrite:
		if f.URLRewrite == nil {
			return missing()
		}
		path, fault := pathChange(f.URLRewrite.Path)
		if fault != "" {
			return nil, fault
		}
		out := &apiwaypoint.Rewrite{Path: path}
		if f.URLRewrite.Hostname != nil {
			out.Hostname = strings.ToLower(string(*f.URLRewrite.Hostname))
		}
		return &apiwaypoint.Filter{Kind: &apiwaypoint.Filter_Rewrite{Rewrite: out}}, ""
	case gatewayv1.HTTPRouteFilterRequestMirror:
		if f.RequestMirror == nil {
			return missing()
		}
		return c.mirror(from, f.RequestMirror)
	case gatewayv1.HTTPRouteFilterCORS:
		if f.CORS == nil {
			return missing()
		}
		return &apiwaypoint.Filter{Kind: &apiwaypoint.Filter_Cors{Cors: cors(f.CORS)}}, ""
	case gatewayv1.HTTPRouteFilterExternalAuth:
		if f.ExternalAuth == nil {
			return missing()
		}
		return c.externalAuth(from, f.ExternalAuth)
	}
	return nil, fmt.Sprintf("filters of the type %s are not supported", f.Type)
}

func headerChange(f *gatewayv1.HTTPHeaderFilter) *apiwaypoint.HeaderChange {
	fields := func(list []gatewayv1.HTTPHeader) (out []*apiwaypoint.HeaderField) {
		for _, h := range list {
			out = append(out, &apiwaypoint.HeaderField{Name: strings.ToLower(string(h.Name)), Value: h.Value})
		}
		return out
	}
	return &apiwaypoint.HeaderChange{Set: fields(f.Set), Add: fields(f.Add), Remove: lower(f.Remove)}
}

func lower[S ~string](list []S) []string {
	var out []string
	for _, s := range list {
		out = append(out, strings.ToLower(string(s)))
	}
	return out
}

func redirect(f *gatewayv1.HTTPRequestRedirectFilter) (*apiwaypoint.Filter, string) {
	path, fault := pathChange(f.Path)
	if fault != "" {
		return nil, fault
	}
	out := &apiwaypoint.Redirect{Path: path, Status: 302}
	if f.Scheme != nil {
		if out.Scheme = strings.ToLower(*f.Scheme); out.Scheme != "http" && out.Scheme != "https" {
			return nil, fmt.Sprintf("redirects to the scheme %q are not supported", *f.Scheme)
		}
	}
	if f.Hostname != nil {
		out.Hostname = strings.ToLower(string(*f.Hostname))
	}
	if f.Port != nil {
		out.Port = uint32(*f.Port)
	}
	if f.StatusCode != nil {
		switch *f.StatusCode {
		case 301, 302, 303, 307, 308:
			out.Status = uint32(*f.StatusCode)
		default:
			return nil, fmt.Sprintf("%d is no status of a redirect", *f.StatusCode)
		}
	}
	return &apiwaypoint.Filter{Kind: &apiwaypoint.Filter_Redirect{Redirect: out}}, ""
}

func pathChange(p *gatewayv1.HTTPPathModifier) (*apiwaypoint.PathChange, string) {
	switch {
	case p == nil:
		return nil, ""
	case p.Type == gatewayv1.FullPathHTTPPathModifier && p.ReplaceFullPath != nil:
		return &apiwaypoint.PathChange{Kind: &apiwaypoint.PathChange_Full{Full: *p.ReplaceFullPath}}, ""
	case p.Type == gatewayv1.PrefixMatchHTTPPathModifier && p.ReplacePrefixMatch != nil:
		return &apiwaypoint.PathChange{Kind: &apiwaypoint.PathChange_Prefix{Prefix: *p.ReplacePrefixMatch}}, ""
	}
	return nil, fmt.Sprintf("the change of paths %s lacks what it should put in", p.Type)
}

func (c *routeCompiler) mirror(from Referrer, f *gatewayv1.HTTPRequestMirrorFilter) (*apiwaypoint.Filter, string) {
	backend := c.target(from, f.BackendRef)
	if backend.Fault != "" {
		return nil, ""
	}
	out := &apiwaypoint.Mirror{Backend: backend, Numerator: 1, Denominator: 1}
	switch {
	case f.Fraction != nil:
		out.Numerator, out.Denominator = uint32(max(f.Fraction.Numerator, 0)), 100
		if d := f.Fraction.Denominator; d != nil && *d > 0 {
			out.Denominator = uint32(*d)
		}
	case f.Percent != nil:
		out.Numerator, out.Denominator = uint32(max(*f.Percent, 0)), 100
	}
	return &apiwaypoint.Filter{Kind: &apiwaypoint.Filter_Mirror{Mirror: out}}, ""
}

func cors(f *gatewayv1.HTTPCORSFilter) *apiwaypoint.Cors {
	out := &apiwaypoint.Cors{AllowHeaders: lower(f.AllowHeaders), ExposeHeaders: lower(f.ExposeHeaders)}
	for _, o := range f.AllowOrigins {
		out.AllowOrigins = append(out.AllowOrigins, string(o))
	}
	for _, m := range f.AllowMethods {
		out.AllowMethods = append(out.AllowMethods, string(m))
	}
	if f.AllowCredentials != nil {
		out.AllowCredentials = *f.AllowCredentials
	}
	if f.MaxAge > 0 {
		out.MaxAge = durationpb.New(time.Duration(f.MaxAge) * time.Second)
	}
	return out
}

// externalAuth without a backend is a fault: what cannot be asked is refused.
func (c *routeCompiler) externalAuth(from Referrer, f *gatewayv1.HTTPExternalAuthFilter) (*apiwaypoint.Filter, string) {
	backend := c.target(from, f.BackendRef)
	if backend.Fault != "" {
		return nil, "whom to ask for authorization: " + backend.Fault
	}
	out := &apiwaypoint.ExternalAuth{Backend: backend}
	switch f.ExternalAuthProtocol {
	case gatewayv1.HTTPRouteExternalAuthGRPCProtocol:
		out.Grpc = true
		if g := f.GRPCAuthConfig; g != nil {
			out.AllowedHeaders = lower(g.AllowedRequestHeaders)
		}
	case gatewayv1.HTTPRouteExternalAuthHTTPProtocol:
		if h := f.HTTPAuthConfig; h != nil {
			out.PathPrefix = h.Path
			out.AllowedHeaders, out.AllowedResponseHeaders = lower(h.AllowedRequestHeaders), lower(h.AllowedResponseHeaders)
		}
		if len(out.AllowedResponseHeaders) == 0 {
			out.AllowedResponseHeaders = []string{"*"} // as the Gateway API has it
		}
	default:
		return nil, fmt.Sprintf("external authorization by the protocol %q is not known", f.ExternalAuthProtocol)
	}
	if f.ForwardBody != nil {
		out.MaxBodyBytes = uint32(f.ForwardBody.MaxSize)
	}
	return &apiwaypoint.Filter{Kind: &apiwaypoint.Filter_ExternalAuth{ExternalAuth: out}}, ""
}
