// Package kube reads the mesh's objects from a Kubernetes API server and follows
// their changes. It owns watching, trimming and what happens when the API server
// is away or an object is not understood; what a valid object is belongs to
// package source, what the objects mean to translate.
//
// Each kind is listed and watched by one client-go reflector that writes into
// one source.Store, without the queue and the second cache of an informer: a
// control plane of 10,000 pods holds each pod once, cut down to what is read.
// An update that changes nothing of that, as most do, ends there.
//
// Nothing is in force before every kind that exists in the cluster has been read
// once; from then on what was read stays in force until the API server says
// otherwise. A list that fails changes nothing, however long it fails.
//
// Kinds of CustomResourceDefinitions that are not installed count as read. They
// are watched when their definition appears, and their objects leave when it
// goes.
//
// An object that is not understood cannot stop the world here, as it does in a
// directory. A policy takes effect more strictly than it says (see
// source.RestrictAuthorization), any other object of Istio's is left out, and
// Status names both.
//
//	src, err := kube.New(kube.Config{REST: config, RootNamespace: "istio-system", Logger: logger})
//	go src.Run(ctx)
//	for range src.Changed() {
//		publish(src.Objects())
//	}
package kube
