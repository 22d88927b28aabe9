package mesh

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// Syncz is what istiod's /debug/syncz shows.
type Syncz struct {
	Serial  uint64   `json:"serial"`
	Behind  bool     `json:"behind"`
	Clients []Client `json:"clients"`
}

// Client is one connected proxy of Syncz.
type Client struct {
	Node      string           `json:"node"`
	Machine   string           `json:"machine"`
	Account   string           `json:"account"`
	Address   string           `json:"address"`
	Connected time.Time        `json:"connected"`
	Types     map[string]Watch `json:"types"`
}

// OfZtunnel reports whether it is a node proxy, not a waypoint, which may run on the same
// node: Istio's node ids begin with the role.
func (c *Client) OfZtunnel() bool { return strings.HasPrefix(c.Node, "ztunnel~") }

// Watch is the state of one subscription.
type Watch struct {
	// State is SYNCED, PENDING, NACKED or NOT SENT.
	State        string    `json:"state"`
	Resources    int       `json:"resources"`
	PendingNames int       `json:"pendingNames"`
	SentVersion  string    `json:"sentVersion"`
	AckedVersion string    `json:"ackedVersion"`
	AckedAt      time.Time `json:"ackedAt"`
	LastNack     string    `json:"lastNack"`
}

// Errorz is what istiod's /debug/errorz shows.
type Errorz struct {
	Source struct {
		LastRead time.Time `json:"lastRead"`
		Problems []Problem `json:"problems"`
	} `json:"source"`
	Warnings []Problem `json:"warnings"`
	Refused  []struct {
		Node    string `json:"node"`
		Type    string `json:"type"`
		Message string `json:"message"`
	} `json:"refused"`
}

// Problem is something wrong with one object.
type Problem struct {
	File    string `json:"file"`
	Object  string `json:"object"`
	Field   string `json:"field"`
	Message string `json:"message"`
}

// String names the object, the field and what is wrong.
func (p Problem) String() string {
	text := p.Object
	if text == "" {
		text = p.File
	}
	if p.Field != "" {
		text += ": " + p.Field
	}
	if text == "" {
		return p.Message
	}
	return text + ": " + p.Message
}

// Syncz asks an istiod which proxies it serves and what they have acknowledged.
func (c *Component) Syncz(ctx context.Context) (Syncz, error) {
	return page[Syncz](ctx, c, "/debug/syncz")
}

// Errorz asks an istiod what is wrong with the configuration.
func (c *Component) Errorz(ctx context.Context) (Errorz, error) {
	return page[Errorz](ctx, c, "/debug/errorz")
}

func page[T any](ctx context.Context, c *Component, path string) (T, error) {
	var out T
	data, err := c.Get(ctx, path)
	if err != nil {
		return out, err
	}
	if err := json.Unmarshal(data, &out); err != nil {
		return out, fmt.Errorf("%s: %s: %w", c, path, err)
	}
	return out, nil
}
