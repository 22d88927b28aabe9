package supervisor

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
)

// agentClient speaks to a node's agent. Sockets with a path are reached from any
// network namespace.
type agentClient struct{ http *http.Client }

func newAgentClient(socket string) *agentClient {
	return &agentClient{http: &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true, // the agent may be restarted at any time
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}}
}

// podRequest is what an agent wants to know of a pod.
type podRequest struct {
	Name           string `json:"name"`
	Namespace      string `json:"namespace"`
	ServiceAccount string `json:"serviceAccount"`
	NetnsPath      string `json:"netnsPath"`
	Strict         bool   `json:"strict"`
	// Running pods join without losing a connection; others are captured first.
	Running bool `json:"running"`
}

// podStatus is what an agent knows of a pod.
type podStatus struct {
	UID                  string `json:"uid"`
	State                string `json:"state"`
	Reason               string `json:"reason"`
	OlderConnectionCount int    `json:"olderConnectionCount"`
}

func (c *agentClient) ready(ctx context.Context) error {
	return answer(c.http, ctx, "http://agent/healthz/ready")
}

// enrol returns when the pod's traffic goes through its node's ztunnel.
func (c *agentClient) enrol(ctx context.Context, uid string, pod podRequest) error {
	body, err := json.Marshal(pod)
	if err != nil {
		return err
	}
	return c.do(ctx, http.MethodPut, uid, body, nil)
}

// release takes a pod out of the mesh. A pod that the agent does not know is
// released already.
func (c *agentClient) release(ctx context.Context, uid string) error {
	return c.do(ctx, http.MethodDelete, uid, nil, nil)
}

// gone tells the agent that the pod has ended.
func (c *agentClient) gone(ctx context.Context, uid string) error {
	return c.do(ctx, http.MethodDelete, uid+"?gone=true", nil, nil)
}

func (c *agentClient) pods(ctx context.Context) ([]podStatus, error) {
	var list struct {
		Pods []podStatus `json:"pods"`
	}
	err := c.do(ctx, http.MethodGet, "", nil, &list)
	return list.Pods, err
}

func (c *agentClient) do(ctx context.Context, method, uid string, body []byte, into any) error {
	url := "http://agent/v1/pods"
	if uid != "" {
		url += "/" + uid
	}
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := c.http.Do(req)
	if err != nil {
		return fmt.Errorf("the node's agent does not answer: %w", err)
	}
	defer res.Body.Close()
	data, err := io.ReadAll(io.LimitReader(res.Body, 16<<20))
	if err != nil {
		return fmt.Errorf("the node's agent: %w", err)
	}
	if res.StatusCode == http.StatusNotFound && method == http.MethodDelete {
		return nil
	}
	if res.StatusCode/100 != 2 {
		var refusal struct {
			Reason string `json:"reason"`
		}
		if json.Unmarshal(data, &refusal) != nil || refusal.Reason == "" {
			refusal.Reason = strings.TrimSpace(string(data))
		}
		return fmt.Errorf("the node's agent: %s (%s)", refusal.Reason, res.Status)
	}
	if into != nil {
		return json.Unmarshal(data, into)
	}
	return nil
}
