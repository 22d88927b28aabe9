package xdsclient

import (
	"encoding/json"
	"fmt"
	"strings"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/types/known/structpb"
)

// Identity is who a proxy says it is. The control plane decides on the bearer
// token alone; this serves its status pages and its scoping.
type Identity struct {
	// Kind is the first part of the node id; empty means ztunnel.
	Kind string
	// InstanceIP is the proxy's own address; empty means 1.1.1.1, the
	// placeholder of Istio's proxies.
	InstanceIP string
	// Name and Namespace are those of the proxy's pod.
	Name, Namespace string
	// Node is the machine that the proxy serves.
	Node string
	// DomainSuffix ends the node id; empty means cluster.local.
	DomainSuffix string
	// Version is the build version.
	Version string
	// Environ is scanned for ISTIO_META_X=text and ISTIO_METAJSON_X=JSON, which
	// become metadata X. Pass os.Environ().
	Environ []string
}

// NewNode builds the node message of a stream. It fails on an ISTIO_METAJSON_
// value that is not JSON and on metadata that is not UTF-8.
func NewNode(id Identity) (*core.Node, error) {
	kind, ip, suffix := id.Kind, id.InstanceIP, id.DomainSuffix
	if kind == "" {
		kind = "ztunnel"
	}
	if ip == "" {
		ip = "1.1.1.1"
	}
	if suffix == "" {
		suffix = "cluster.local"
	}
	meta := map[string]any{
		"NAME":         id.Name,
		"NAMESPACE":    id.Namespace,
		"INSTANCE_IPS": ip,
		"NODE_NAME":    id.Node,
	}
	for _, kv := range id.Environ {
		key, value, ok := strings.Cut(kv, "=")
		if !ok {
			continue
		}
		if name, found := strings.CutPrefix(key, "ISTIO_META_"); found && name != "" {
			meta[name] = value
		} else if name, found := strings.CutPrefix(key, "ISTIO_METAJSON_"); found && name != "" {
			var v any
			if err := json.Unmarshal([]byte(value), &v); err != nil {
				return nil, fmt.Errorf("environment variable %s is not JSON: %w", key, err)
			}
			meta[name] = v
		}
	}
	fields, err := structpb.NewStruct(meta)
	if err != nil {
		return nil, fmt.Errorf("node metadata: %w", err)
	}
	return &core.Node{
		Id:            fmt.Sprintf("%s~%s~%s.%s~%s.svc.%s", kind, ip, id.Name, id.Namespace, id.Namespace, suffix),
		Cluster:       kind,
		Metadata:      fields,
		UserAgentName: kind,
		UserAgentVersionType: &core.Node_UserAgentVersion{
			UserAgentVersion: id.Version,
		},
	}, nil
}
