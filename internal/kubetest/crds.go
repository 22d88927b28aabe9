package kubetest

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/tulle-mesh/tulle/manifests"
)

// installCRDs creates the definitions and waits until they are established.
func installCRDs(ctx context.Context, config *rest.Config) error {
	definitions, err := splitCRDs(manifests.CRDs())
	if err != nil {
		return fmt.Errorf("custom resource definitions: %w", err)
	}
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return err
	}
	crds := client.Resource(apiextensionsv1.SchemeGroupVersion.WithResource("customresourcedefinitions"))
	failures := make(chan error, len(definitions))
	for _, d := range definitions {
		go func() {
			_, err := crds.Create(ctx, d, createOptions)
			failures <- err
		}()
	}
	for range definitions {
		err = errors.Join(err, <-failures)
	}
	if err != nil {
		return fmt.Errorf("create custom resource definitions: %w", err)
	}
	ticker := time.NewTicker(readyInterval)
	defer ticker.Stop()
	for _, d := range definitions {
		for {
			now, err := crds.Get(ctx, d.GetName(), getOptions)
			if err != nil {
				return fmt.Errorf("custom resource definition %s: %w", d.GetName(), err)
			}
			if established(now) {
				break
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("custom resource definition %s is not established: %w", d.GetName(), ctx.Err())
			case <-ticker.C:
			}
		}
	}
	return nil
}

// splitCRDs parses documents and keeps definitions: what else a release ships
// guards its upgrades.
func splitCRDs(documents [][]byte) ([]*unstructured.Unstructured, error) {
	var out []*unstructured.Unstructured
	for _, document := range documents {
		reader := yaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(document)))
		for {
			one, err := reader.Read()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return nil, err
			}
			var u unstructured.Unstructured
			if err := yaml.Unmarshal(one, &u.Object); err != nil {
				return nil, err
			}
			if u.GetKind() == "CustomResourceDefinition" {
				out = append(out, &u)
			}
		}
	}
	return out, nil
}

func established(u *unstructured.Unstructured) bool {
	var crd apiextensionsv1.CustomResourceDefinition
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, &crd); err != nil {
		return false
	}
	for _, c := range crd.Status.Conditions {
		if c.Type == apiextensionsv1.Established && c.Status == apiextensionsv1.ConditionTrue {
			return true
		}
	}
	return false
}
