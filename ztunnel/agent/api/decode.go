package api

import (
	"encoding/json"
	"errors"
	"io"

	"github.com/tulle-mesh/tulle/ztunnel/agent/enrol"
)

// decode reads a pod; a field that it does not know, or more than one value, is
// an error, because it may mean something that would then not be done.
func decode(r io.Reader) (enrol.Pod, error) {
	var body struct {
		Name           string `json:"name"`
		Namespace      string `json:"namespace"`
		ServiceAccount string `json:"serviceAccount"`
		NetnsPath      string `json:"netnsPath"`
		Strict         bool   `json:"strict"`
		Running        bool   `json:"running"`
	}
	d := json.NewDecoder(r)
	d.DisallowUnknownFields()
	if err := d.Decode(&body); err != nil {
		return enrol.Pod{}, err
	}
	if err := d.Decode(new(json.RawMessage)); !errors.Is(err, io.EOF) {
		return enrol.Pod{}, errors.New("more after the first value")
	}
	return enrol.Pod{
		Name: body.Name, Namespace: body.Namespace, ServiceAccount: body.ServiceAccount,
		NetnsPath: body.NetnsPath, Strict: body.Strict, Running: body.Running,
	}, nil
}
