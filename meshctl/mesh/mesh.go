package mesh

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// Names of components.
const (
	Ztunnel = "ztunnel"
	Istiod  = "istiod"
	Agent   = "tulle-agent"
	// Waypoint proxies run anywhere, in any number: their names are NAMESPACE/POD.
	Waypoint = "waypoint"
)

// Mesh is one running mesh.
type Mesh interface {
	// Local tells a local mesh from one in a cluster.
	Local() bool
	// String says which mesh it is.
	String() string
	// Namespace is where names without one are looked for; empty where a name that
	// only one pod has is enough.
	Namespace() string
	// Components lists the instances of Ztunnel, Istiod, Agent or Waypoint by node and name,
	// those that do not run included. None at all is no error.
	Components(ctx context.Context, kind string) ([]*Component, error)
	// Pods lists the pods of a namespace by name; empty is every namespace.
	Pods(ctx context.Context, namespace string) ([]Pod, error)
	// Pod returns one pod, or a NotFoundError.
	Pod(ctx context.Context, namespace, name string) (Pod, error)
	// Services lists the services of a namespace by name; empty is every namespace.
	Services(ctx context.Context, namespace string) ([]Service, error)
}

// NotFoundError says that an object does not exist and what there is instead.
type NotFoundError struct {
	Kind, Namespace, Name string
	// Hint says what to do; it may be empty.
	Hint string
}

func (e *NotFoundError) Error() string {
	name := e.Name
	if e.Namespace != "" {
		name = e.Namespace + "/" + e.Name
	}
	text := fmt.Sprintf("there is no %s %s", e.Kind, name)
	if e.Hint != "" {
		text += ": " + e.Hint
	}
	return text
}

// RefusalError is an answer of a component that is not what was asked for.
type RefusalError struct {
	// Status is HTTP's, Text what the component says.
	Status, Text string
}

func (e *RefusalError) Error() string {
	if e.Text == "" {
		return e.Status
	}
	return e.Text
}

// Component is one instance of a part of the mesh.
type Component struct {
	Kind string
	// Name is the pod's in a cluster, else the kind.
	Name string
	Node string
	// Version is that of its image, or of the local mesh.
	Version string
	Ready   bool
	// Reason says why it is not ready.
	Reason   string
	Restarts int
	// Gateway of a waypoint, NAMESPACE/NAME.
	Gateway string

	ask func(ctx context.Context, method, path string) ([]byte, error)
}

// NewComponent returns a component whose admin interface is asked by ask: method
// GET or POST, path with query. It is for meshes of other kinds, such as those of
// tests.
func NewComponent(c Component, ask func(ctx context.Context, method, path string) ([]byte, error)) *Component {
	c.ask = ask
	return &c
}

// Get asks the component's admin interface for a page ("/config_dump").
func (c *Component) Get(ctx context.Context, path string) ([]byte, error) {
	return c.send(ctx, "GET", path)
}

// Post has the component's admin interface do something.
func (c *Component) Post(ctx context.Context, path string) ([]byte, error) {
	return c.send(ctx, "POST", path)
}

func (c *Component) send(ctx context.Context, method, path string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	body, err := c.ask(ctx, method, path)
	var refusal *RefusalError
	if errors.As(err, &refusal) {
		return nil, fmt.Errorf("%s answers: %w", c, err)
	}
	if err != nil {
		return nil, fmt.Errorf("%s does not answer: %w", c, err)
	}
	return body, nil
}

// String names the component and its node.
func (c *Component) String() string {
	if c.Node == "" {
		return c.Name
	}
	return c.Name + " on " + c.Node
}

// Pod is a pod as far as the commands need it.
type Pod struct {
	Namespace string
	Name      string
	Node      string
	IPs       []string
	Phase     string
	Ready     bool
	// Reason says why it is not ready.
	Reason      string
	HostNetwork bool
	Account     string
	Labels      map[string]string
	// Member is true when the pod is captured: its connections go through the mesh.
	Member bool
	// Outside says why it is not, and what to do.
	Outside string
}

// Service is a service as far as the commands need it.
type Service struct {
	Namespace string
	Name      string
	Hostname  string
	IPs       []string
	Ports     []uint16
	// ExternalName is the foreign name that it stands for, if it does.
	ExternalName string
	HasSelector  bool
}

// Each asks all components at once, a bounded number at a time, and returns the
// answers in their order; the error of a component is its own.
func Each[T any](ctx context.Context, all []*Component, ask func(ctx context.Context, c *Component) (T, error)) ([]T, []error) {
	answers, errs := make([]T, len(all)), make([]error, len(all))
	var wg sync.WaitGroup
	slots := make(chan struct{}, askAtOnce)
	for i, c := range all {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			answers[i], errs[i] = ask(ctx, c)
		})
	}
	wg.Wait()
	return answers, errs
}
