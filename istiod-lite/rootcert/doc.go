// Package rootcert puts the roots of the mesh into every namespace, as the
// ConfigMap istio-ca-root-cert with the key root-cert.pem, and keeps them there:
// pods mount it to know the control plane by. One replica writes, the others
// leave it to the one (package leader).
//
//	d, err := rootcert.New(rootcert.Config{Client: client, Metadata: metadata, Bundle: authority.BundlePEM})
//	d.Run(ctx) // until ctx ends
//
// It watches the metadata of namespaces and the ConfigMaps of that one name, so
// that its cost grows with the number of namespaces alone.
package rootcert
