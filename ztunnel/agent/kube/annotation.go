package kube

import (
	"context"
	"encoding/json"
	"fmt"

	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/tulle-mesh/tulle/ztunnel/agent/membership"
)

// fieldManager names the agent as the writer of its annotation.
const fieldManager = "tulle-agent"

// annotate writes the annotation, or removes it when value is empty. A pod that
// is gone is no error.
//
// It goes through the status of the pod: who may patch that can write metadata,
// but not what a pod runs, so a node's agent that falls into wrong hands cannot
// change other nodes' pods.
func (c *Controller) annotate(ctx context.Context, pod *corev1.Pod, value string) error {
	var v any // null removes
	if value != "" {
		v = value
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{
		// A pod that was made anew under the same name refuses the patch.
		"uid": pod.UID, "annotations": map[string]any{membership.Redirection: v},
	}})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err = c.cfg.Client.CoreV1().Pods(pod.Namespace).Patch(ctx, pod.Name, types.MergePatchType, patch,
		metav1.PatchOptions{FieldManager: fieldManager}, "status")
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil // gone, or another one: its own events follow
	}
	if err != nil {
		return fmt.Errorf("pod %s/%s: write annotation %s=%s: %w", pod.Namespace, pod.Name, membership.Redirection, value, err)
	}
	c.log.Debug("annotation written", append(podFields(pod), zap.String("value", value))...)
	return nil
}
