// Package meshconfig reads the mesh's own configuration as Istio has it: the text of
// key mesh of the ConfigMap istio in the root namespace.
//
// It owns the reading: which parts Tulle takes notice of (the extension providers, which
// of them are the defaults, and the mesh's access log), and what is wrong with them. What
// a provider is for belongs to others: external authorization to translate, tracing and
// access logs to what translates Telemetry resources.
//
//	config, err := meshconfig.Parse(objects.ConfigMaps[name].Data["mesh"])
//	provider := config.Providers["my-ext-authz"]
package meshconfig
