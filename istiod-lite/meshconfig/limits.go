package meshconfig

const (
	// maxProxies bounds how many proxies may be trusted: chains of proxies are shorter.
	maxProxies = 63
	// maxBytes bounds the text: a ConfigMap has at most 1 MiB.
	maxBytes = 1 << 20
	// maxProviders bounds the extension providers (Istio's schema has 1,000).
	maxProviders = 1000
	// maxNames bounds the fields that one list of a provider names.
	maxNames = 1024
)
