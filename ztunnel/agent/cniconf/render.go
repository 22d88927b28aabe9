package cniconf

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/containernetworking/cni/pkg/version"

	"github.com/tulle-mesh/tulle/ztunnel/agent/cni"
)

// oldest is the first version in which a plugin gets the result of those before.
const oldest = "0.3.0"

// Render makes the chain with our plugin at its end out of a configuration:
// a list (*.conflist), or a single plugin (*.conf, *.json), which becomes a list
// of one. What it does not know stays as it is. Our own plugin is not chained
// twice.
func Render(primary []byte, list bool, own cni.Conf) ([]byte, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(primary, &fields); err != nil {
		return nil, err
	}
	if !list {
		var err error
		if fields, err = wrap(fields, primary); err != nil {
			return nil, err
		}
	}
	var v, name string
	if err := text(fields, "cniVersion", &v); err != nil {
		return nil, err
	}
	if err := text(fields, "name", &name); err != nil {
		return nil, err
	}
	if ok, err := version.GreaterThanOrEqualTo(v, oldest); err != nil || !ok {
		return nil, fmt.Errorf("cniVersion %q: chained plugins need %s or later", v, oldest)
	}
	var plugins []json.RawMessage
	if err := json.Unmarshal(fields["plugins"], &plugins); err != nil {
		return nil, fmt.Errorf("plugins: %w", err)
	}
	var chain []json.RawMessage
	for i, p := range plugins {
		var one struct {
			Type string `json:"type"`
		}
		if err := json.Unmarshal(p, &one); err != nil {
			return nil, fmt.Errorf("plugins[%d]: %w", i, err)
		}
		switch one.Type {
		case "":
			return nil, fmt.Errorf("plugins[%d]: type is missing", i)
		case cni.Type:
			continue
		}
		chain = append(chain, p)
	}
	if len(chain) == 0 {
		return nil, errors.New("plugins: there is none to chain after")
	}
	own.Type = cni.Type
	last, err := json.Marshal(own)
	if err != nil {
		return nil, err
	}
	if fields["plugins"], err = json.Marshal(append(chain, last)); err != nil {
		return nil, err
	}
	out, err := json.MarshalIndent(fields, "", "  ")
	return append(out, '\n'), err
}

// wrap makes a list of a single plugin's configuration.
func wrap(fields map[string]json.RawMessage, plugin []byte) (map[string]json.RawMessage, error) {
	if _, ok := fields["type"]; !ok {
		return nil, errors.New("type is missing")
	}
	one := map[string]json.RawMessage{"plugins": slicesOfOne(plugin)}
	for _, key := range []string{"cniVersion", "name"} {
		if v, ok := fields[key]; ok {
			one[key] = v
		}
	}
	return one, nil
}

func slicesOfOne(plugin []byte) json.RawMessage {
	return bytes.Join([][]byte{[]byte("["), plugin, []byte("]")}, nil)
}

func text(fields map[string]json.RawMessage, key string, into *string) error {
	raw, ok := fields[key]
	if !ok {
		return fmt.Errorf("%s is missing", key)
	}
	if err := json.Unmarshal(raw, into); err != nil || strings.TrimSpace(*into) == "" {
		return fmt.Errorf("%s: want a text", key)
	}
	return nil
}
