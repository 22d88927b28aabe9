package cni

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// Type is the plugin's name in a configuration, and of its program.
const Type = "tulle-cni"

// Conf is the plugin's part of the node's CNI configuration, which the agent
// writes.
type Conf struct {
	Type string `json:"type"`
	// AgentSocket is the agent's unix socket as the node sees it.
	AgentSocket string `json:"agentSocket"`
	// ExcludeNamespaces are those whose pods pass without asking.
	ExcludeNamespaces []string `json:"excludeNamespaces"`
}

// input is what a runtime gives the plugin on its standard input.
type input struct {
	Conf
	CNIVersion string          `json:"cniVersion"`
	PrevResult json.RawMessage `json:"prevResult"`
}

func parseInput(b []byte) (input, error) {
	var in input
	if err := json.Unmarshal(b, &in); err != nil {
		return input{}, err
	}
	if in.AgentSocket == "" {
		return input{}, errors.New("agentSocket is missing")
	}
	return in, nil
}

// addresses takes the pod's addresses out of a result, whose form has been the
// same in this since version 0.3.0. The agent learns from the API server what is
// not understood here.
func addresses(prevResult json.RawMessage) []netip.Addr {
	var result struct {
		IPs []struct {
			Address string `json:"address"`
		} `json:"ips"`
	}
	if json.Unmarshal(prevResult, &result) != nil {
		return nil
	}
	var out []netip.Addr
	for _, ip := range result.IPs {
		if p, err := netip.ParsePrefix(ip.Address); err == nil && len(out) < maxAddresses {
			out = append(out, p.Addr().Unmap())
		}
	}
	return out
}

// podArgs takes the pod's names out of CNI_ARGS: KEY=VALUE separated by
// semicolons, of which runtimes of Kubernetes set three that matter.
func podArgs(args string) (namespace, name, uid string, err error) {
	for pair := range strings.SplitSeq(args, ";") {
		key, value, _ := strings.Cut(pair, "=")
		switch key {
		case "K8S_POD_NAMESPACE":
			namespace = value
		case "K8S_POD_NAME":
			name = value
		case "K8S_POD_UID":
			uid = value
		}
	}
	if namespace == "" || name == "" {
		return "", "", "", fmt.Errorf("CNI_ARGS %q has no K8S_POD_NAMESPACE and K8S_POD_NAME: only runtimes of Kubernetes can use this plugin", args)
	}
	return namespace, name, uid, nil
}
