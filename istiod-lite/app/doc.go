// Package app puts istiod-lite together: it reads objects, translates them,
// publishes snapshots over xDS, and signs certificates, on one TLS port, beside
// an admin interface for the machine itself. It owns the order of start and
// stop and the pipeline from a change to its publication; the parts belong to
// their packages.
//
//	a, err := app.New(cfg, app.Options{Logger: logger, Levels: levels})
//	err = a.Run(ctx) // until ctx ends and everything has been put away
package app
