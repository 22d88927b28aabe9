// Package config holds ztunnel's settings: one struct, read once from flags and
// environment, validated once, immutable afterwards. Every setting has a flag;
// those that Istio's ztunnel reads from the environment are read from the same
// names too, and a flag wins over the environment. Errors name the flag or the
// variable that is wrong.
//
//	cfg, err := config.Parse(os.Args[1:], os.Getenv)
package config
