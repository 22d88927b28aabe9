package report

import "testing"

func TestNamesOfWorkloads(t *testing.T) {
	for uid, want := range map[string]string{
		"Kubernetes//Pod/shop/api-1":                                   "api-1",
		"Kubernetes/networking.istio.io/WorkloadEntry/shop/vm":         "vm",
		"Kubernetes/networking.istio.io/ServiceEntry/shop/db/10.0.0.1": "db",
		"Kubernetes//Pod/shop/":                                        "Kubernetes//Pod/shop/",
		"api-1":                                                        "api-1",
		"":                                                             "",
	} {
		if got := nameOf(uid); got != want {
			t.Errorf("%q: %q, want %q", uid, got, want)
		}
	}
}
