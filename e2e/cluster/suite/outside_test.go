package suite_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tulle-mesh/tulle/internal/netns"
)

// fetchIn makes one request from a network namespace of the host, which is no pod.
func fetchIn(ns *netns.NS, addr string) (answer, error) {
	var a answer
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(_ context.Context, network, addr string) (c net.Conn, err error) {
			// One address, so the socket is made by this very goroutine, in the namespace.
			err = ns.Do(func() error {
				c, err = net.DialTimeout(network, addr, 5*time.Second)
				return err
			})
			return c, err
		},
	}}
	req, err := http.NewRequest(http.MethodGet, "http://"+addr+"/", nil)
	if err != nil {
		return a, err
	}
	req.Header.Set("X-Marker", capture.public)
	resp, err := client.Do(req)
	if err != nil {
		return a, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return a, fmt.Errorf("%s", resp.Status)
	}
	return a, json.NewDecoder(resp.Body).Decode(&a)
}

// meshPods returns the pods of a part of the mesh, on one node if node is given.
func meshPods(t testing.TB, app, node string) []corev1.Pod {
	t.Helper()
	list, err := suite.client.CoreV1().Pods(meshNamespace).List(t.Context(), metav1.ListOptions{LabelSelector: "app=" + app})
	if err != nil {
		t.Fatal(err)
	}
	var pods []corev1.Pod
	for _, p := range list.Items {
		if node == "" || p.Spec.NodeName == node {
			pods = append(pods, p)
		}
	}
	return pods
}

// meshLogs returns what a part of the mesh on a node has logged since.
func meshLogs(t testing.TB, app, node string, since time.Time) string {
	t.Helper()
	from := metav1.NewTime(since)
	text := ""
	for _, p := range meshPods(t, app, node) {
		b, err := suite.client.CoreV1().Pods(meshNamespace).GetLogs(p.Name, &corev1.PodLogOptions{SinceTime: &from}).DoRaw(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		text += string(b)
	}
	return text
}

// meshReady waits until every part of the mesh is ready, n pods of app and none besides.
func meshReady(t testing.TB, app string, n int, bound time.Duration) {
	t.Helper()
	eventually(t, bound, fmt.Sprintf("%d ready pods of %s", n, app), func() error {
		pods := meshPods(t, app, "")
		if len(pods) != n {
			return fmt.Errorf("%d pods", len(pods))
		}
		for _, p := range pods {
			if !isReady(&p) || p.DeletionTimestamp != nil {
				return fmt.Errorf("%s: %s", p.Name, describePod(&p))
			}
		}
		return nil
	})
}
