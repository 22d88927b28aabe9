package kubetest

import (
	"fmt"
	"os"
	"path/filepath"
)

// binVariable names the folder with the programs of Kubernetes.
const binVariable = "TULLE_CLUSTER_BIN"

// Binaries returns the folder with etcd, kube-apiserver and
// kube-controller-manager. The error says what to do about its lack.
func Binaries() (string, error) {
	dir := os.Getenv(binVariable)
	if dir == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("needs the programs of Kubernetes; set %s to their folder: %w", binVariable, err)
		}
		dir = filepath.Join(cache, "tulle", "cluster", "current", "bin")
	}
	for _, name := range []string{"etcd", "kube-apiserver", "kube-controller-manager"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			return "", fmt.Errorf("needs the programs of Kubernetes: %w; `make cluster-binaries` builds them; or set %s to their folder", err, binVariable)
		}
	}
	return dir, nil
}
