package cni

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// ask sends one request to the agent.
func ask(socket, command string, q Request, timeout time.Duration) (Answer, error) {
	body, err := json.Marshal(q)
	if err != nil {
		return Answer{}, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://agent/v1/cni/"+command, bytes.NewReader(body))
	if err != nil {
		return Answer{}, err
	}
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
	}
	defer transport.CloseIdleConnections()
	res, err := transport.RoundTrip(req)
	if err != nil {
		return Answer{}, fmt.Errorf("the node agent does not answer on %s (is the DaemonSet tulle-agent running on this node?): %w", socket, err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return Answer{}, fmt.Errorf("the node agent broke off on %s: %w", socket, err)
	}
	if res.StatusCode != http.StatusOK {
		var refusal Refusal
		if json.Unmarshal(text, &refusal) != nil || refusal.Reason == "" {
			refusal.Reason = res.Status
		}
		return Answer{}, fmt.Errorf("the node agent: %s", refusal.Reason)
	}
	var answer Answer
	if err := json.Unmarshal(text, &answer); err != nil {
		return Answer{}, fmt.Errorf("the node agent's answer on %s: %w", socket, err)
	}
	return answer, nil
}
