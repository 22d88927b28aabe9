package mesh

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/tulle-mesh/tulle/certs"
	"github.com/tulle-mesh/tulle/internal/state"
)

// Dump is a ztunnel's config_dump. Istio's own has the same keys and lacks those
// that are marked as ours.
type Dump struct {
	Workloads     []state.WorkloadDump `json:"workloads"`
	Services      []state.ServiceDump  `json:"services"`
	Policies      []Policy             `json:"policies"`
	Certificates  []Certificate        `json:"certificates"`
	WorkloadState map[string]PodState  `json:"workloadState"`
	Version       struct {
		Version string `json:"version"`
	} `json:"version"`
	// Ours.
	CertificateStatus []certs.Status `json:"certificateStatus"`
	XDS               XDS            `json:"xds"`
}

// Policy is one policy of a Dump.
type Policy struct {
	Name      string          `json:"name"`
	Namespace string          `json:"namespace"`
	Scope     string          `json:"scope"`
	Action    string          `json:"action"`
	DryRun    bool            `json:"dryRun,omitempty"`
	Rules     json.RawMessage `json:"rules"`
	Warnings  []string        `json:"warnings,omitempty"`
}

// Certificate is one identity of a Dump in Istio's form.
type Certificate struct {
	Identity  string                  `json:"identity"`
	State     string                  `json:"state"`
	CertChain []certs.DumpCertificate `json:"certChain"`
	RootCerts []certs.DumpCertificate `json:"rootCerts"`
}

// PodState is one pod that a ztunnel serves.
type PodState struct {
	// State is Up or Pending, Error why.
	State string `json:"state"`
	Error string `json:"error,omitempty"`
	Info  struct {
		Name           string `json:"name"`
		Namespace      string `json:"namespace"`
		ServiceAccount string `json:"serviceAccount"`
	} `json:"info"`
	Addresses   []string `json:"addresses"`
	Connections struct {
		Inbound  []Connection `json:"inbound"`
		Outbound []Connection `json:"outbound"`
	} `json:"connections"`
}

// Connection is one live connection of a Dump. Istio's has the first four.
type Connection struct {
	Src           string    `json:"src"`
	OriginalDst   string    `json:"originalDst"`
	ActualDst     string    `json:"actualDst"`
	Protocol      string    `json:"protocol"`
	SrcIdentity   string    `json:"srcIdentity,omitempty"`
	DstIdentity   string    `json:"dstIdentity,omitempty"`
	SrcWorkload   string    `json:"srcWorkload,omitempty"`
	DstWorkload   string    `json:"dstWorkload,omitempty"`
	DstService    string    `json:"dstService,omitempty"`
	Policy        string    `json:"policy,omitempty"`
	BytesSent     uint64    `json:"bytesSent"`
	BytesReceived uint64    `json:"bytesReceived"`
	Opened        time.Time `json:"opened,omitzero"`
}

// XDS is how a ztunnel stands with the control plane.
type XDS struct {
	Connected bool
	Since     time.Time
	LastError string
	Types     map[string]struct {
		Synced        bool
		Resources     int
		Nonce         string
		LastResponse  time.Time
		LastRejection string
	}
}

// ParseDump reads a config_dump.
func ParseDump(data []byte) (*Dump, error) {
	d := &Dump{}
	if err := json.Unmarshal(data, d); err != nil {
		return nil, fmt.Errorf("config_dump: %w", err)
	}
	return d, nil
}

// Dump asks a ztunnel for its config_dump.
func (c *Component) Dump(ctx context.Context) (*Dump, error) {
	data, err := c.Get(ctx, "/config_dump")
	if err != nil {
		return nil, err
	}
	d, err := ParseDump(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c, err)
	}
	return d, nil
}
