package machine

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

// Config is what PID 1 of a node is told, in a file.
type Config struct {
	// Name is the host name.
	Name string `json:"name"`
	// Dir is the node's directory: its disks, its configuration files and logs.
	Dir string `json:"dir"`
	// ContainerdBin holds containerd, its shim and ctr, CNIBin the plugins that a new node gets.
	ContainerdBin string `json:"containerdBin"`
	CNIBin        string `json:"cniBin"`
	// Kubelet and KubeProxy are the commands with all arguments.
	Kubelet   []string `json:"kubelet"`
	KubeProxy []string `json:"kubeProxy"`
	// Images are archives that are imported before the kubelet starts.
	Images []string `json:"images"`
}

// Files and directories below Config.Dir.
const (
	configFile     = "machine.json"
	controlSocket  = "control.sock"
	logDir         = "log"
	containerdFile = "containerd.toml"
)

// Write stores the configuration where Run finds it.
func (c Config) Write() error {
	b, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(c.Dir, configFile), b, 0o644)
}

func load(dir string) (Config, error) {
	var c Config
	b, err := os.ReadFile(filepath.Join(dir, configFile))
	if err != nil {
		return c, err
	}
	if err := json.Unmarshal(b, &c); err != nil {
		return c, fmt.Errorf("%s: %w", configFile, err)
	}
	return c, nil
}
