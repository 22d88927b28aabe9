package suite_test

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tulle-mesh/tulle/internal/netns"

	"github.com/tulle-mesh/tulle/e2e/cluster/topology"
)

// url is of a pod or service by address or name.
func url(host string, port int) string {
	return "http://" + net.JoinHostPort(host, fmt.Sprint(port)) + "/"
}

// testTraffic: pod to pod on one node and between nodes, by both IP versions, TCP
// whose client or server speaks first; the server sees the client's own address.
func testTraffic(t *testing.T) {
	s := enrolled(t, "traffic")
	servers := s.deploy("server", 2, spread, withNodes(nodeClient, nodeServer))
	client := s.client("client", onNode(nodeClient))
	for _, server := range servers {
		where := "same node"
		if server.Spec.NodeName != client.node {
			where = "other node"
		}
		t.Run(where, func(t *testing.T) {
			client := client.as(t)
			a, err := client.get(url(server.Status.PodIP, portHTTP))
			if err != nil {
				t.Fatal(err)
			}
			if a.Pod != server.Name || a.Marker != s.marker {
				t.Errorf("answered by %+v", a)
			}
			if host, _, _ := net.SplitHostPort(a.Client); host != client.ip {
				t.Errorf("the server saw %s as its client, not the pod's own %s", a.Client, client.ip)
			}
		})
		t.Run(where+" IPv6", func(t *testing.T) {
			if ip6(&server) == "" {
				t.Skip("the cluster has IPv4 alone")
			}
			if _, err := client.as(t).get(url(ip6(&server), portHTTP)); err != nil {
				t.Error(err)
			}
		})
		for name, port := range map[string]int{"client first": portEcho, "server first": portFirst} {
			t.Run(where+" TCP "+name, func(t *testing.T) {
				h := client.as(t).hold(net.JoinHostPort(server.Status.PodIP, fmt.Sprint(port)), "--every=10ms", fmt.Sprintf("--greeted=%v", port == portFirst))
				eventually(t, within, "20 lines come back", func() error {
					if r := h.held(); r.Echoed < 20 {
						return fmt.Errorf("%+v", r)
					}
					return nil
				})
				if r := h.held(); len(r.Breaks) > 0 || r.Connected != 1 {
					t.Errorf("%+v", r)
				}
			})
		}
	}
	t.Run("much at once", func(t *testing.T) {
		r := client.as(t).load(url(servers[0].Status.PodIP, portHTTP)+"bytes?n=1000000", 0, "--requests=60", "--workers=6")
		eventually(t, within, "60 times 1 MB arrives", func() error {
			if p := r.peek(); p.Sent < 60 {
				return fmt.Errorf("%s", p)
			}
			return nil
		})
		r.stopClean("60 times 1 MB")
	})
	t.Run("nobody listens", func(t *testing.T) {
		// The failure of the application is told as its own, at once.
		begun := time.Now()
		a, err := client.as(t).get(url(servers[0].Status.PodIP, 4444))
		if err == nil {
			t.Fatalf("answered by %+v", a)
		}
		t.Logf("after %v: %v", time.Since(begun).Round(time.Millisecond), err)
		if strings.Contains(err.Error(), "timeout") {
			t.Errorf("a port without a listener times out instead of being refused: %v", err)
		}
	})
}

// testServices: the kinds of Services, and the cluster's DNS.
func testServices(t *testing.T) {
	s := enrolled(t, "services")
	servers := s.deploy("server", 3, spread)
	s.service("server")
	client := s.client("client", onNode(nodeClient))

	t.Run("cluster IP reaches every endpoint", func(t *testing.T) {
		l := client.as(t).load(url(s.host("server"), 80), 0, "--requests=120", "--workers=4")
		eventually(t, within, "120 requests", func() error {
			if r := l.peek(); r.Sent < 120 {
				return fmt.Errorf("%s", r)
			}
			return nil
		})
		if r := l.stopClean("cluster IP"); len(r.Pods) != len(servers) {
			t.Errorf("answers came from %v, not from all of %d pods", r.Pods, len(servers))
		}
	})
	t.Run("short name and other port", func(t *testing.T) {
		client := client.as(t)
		if _, err := client.get("http://server/"); err != nil {
			t.Error(err)
		}
		if out, err := client.exec("app", "hold", "--addr=server:9001", "--greeted", "--duration=500ms", "--every=10ms"); err != nil {
			t.Error(out, err)
		}
	})
	t.Run("headless", func(t *testing.T) {
		client := client.as(t)
		s := s.as(t)
		headless := func(spec *corev1.ServiceSpec) {
			spec.ClusterIP, spec.Selector = "None", map[string]string{"app": "server"}
		}
		s.service("headless", headless)
		var addresses []string
		eventually(t, within, "the name has the pods' addresses", func() error {
			out, err := client.exec("app", "resolve", s.host("headless"))
			addresses = strings.Fields(out)
			if err == nil && len(addresses) != len(servers) {
				err = fmt.Errorf("%v", addresses)
			}
			return err
		})
		for _, p := range servers {
			if !slices.Contains(addresses, p.Status.PodIP) {
				t.Errorf("%s of %s is not among %v", p.Status.PodIP, p.Name, addresses)
			}
		}
		if a := client.reaches(url(s.host("headless"), portHTTP)); a.Marker != s.marker {
			t.Errorf("%+v", a)
		}
	})
	t.Run("StatefulSet", func(t *testing.T) {
		s := s.as(t)
		s.service("set", func(spec *corev1.ServiceSpec) { spec.ClusterIP = "None" })
		n := int32(2)
		if _, err := suite.client.AppsV1().StatefulSets(s.name).Create(t.Context(), &appsv1.StatefulSet{
			ObjectMeta: metav1.ObjectMeta{Name: "set"},
			Spec: appsv1.StatefulSetSpec{
				Replicas: &n, ServiceName: "set", Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "set"}}, Template: s.template("set", nil),
			},
		}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		s.ready("set", 2)
		client := client.as(t)
		for _, name := range []string{"set-0", "set-1"} {
			if a := client.reaches(url(name+"."+s.host("set"), portHTTP)); a.Pod != name {
				t.Errorf("%s answered in place of %s", a.Pod, name)
			}
		}
		// The name stays when the pod is another one with another address.
		if err := suite.client.CoreV1().Pods(s.name).Delete(t.Context(), "set-0", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		s.ready("set", 2)
		if a := client.reaches(url("set-0."+s.host("set"), portHTTP)); a.Pod != "set-0" {
			t.Errorf("%+v", a)
		}
	})
	t.Run("DNS", func(t *testing.T) {
		client := client.as(t)
		for name, want := range map[string]string{
			"kubernetes.default.svc.cluster.local": topology.APIServiceIP.String(),
			"kube-dns.kube-system":                 topology.DNSServiceIP.String(),
		} {
			if out, err := client.exec("app", "resolve", name); err != nil || !slices.Contains(strings.Fields(out), want) {
				t.Errorf("%s is %q, not %s: %v", name, strings.Fields(out), want, err)
			}
		}
		if out, err := client.exec("app", "resolve", "no-such-service."+s.name); err == nil {
			t.Errorf("a name that does not exist is %q", out)
		}
	})
	t.Run("API server from an enrolled pod", func(t *testing.T) {
		client := client.as(t)
		// TLS answers plain HTTP with 400: the way is open. The server is outside the
		// mesh, so the request may be seen.
		_, err := client.exec("app", "get", "--marker="+capture.public, "http://kubernetes.default:443/")
		if err == nil || !strings.Contains(err.Error(), "400") {
			t.Errorf("want status 400 of the API server, not %v", err)
		}
	})
}

// testOutsiders: who is not in the mesh reaches it, as long as no policy objects.
func testOutsiders(t *testing.T) {
	mesh, plain := enrolled(t, "outsiders-mesh"), outside(t, "outsiders")
	servers := mesh.deploy("server", 3, spread)
	var nodePort int
	svc := mesh.service("server", func(spec *corev1.ServiceSpec) { spec.Type = corev1.ServiceTypeNodePort })
	for _, p := range svc.Spec.Ports {
		if p.Name == "http" {
			nodePort = int(p.NodePort)
		}
	}
	t.Run("pod outside the mesh", func(t *testing.T) {
		client := plain.as(t).client("client", onNode(nodeClient))
		for _, server := range servers {
			a, err := client.get(url(server.Status.PodIP, portHTTP))
			if err != nil {
				t.Error(err)
				continue
			}
			if host, _, _ := net.SplitHostPort(a.Client); host != client.ip {
				t.Errorf("%s saw %s as its client, not %s", a.Pod, a.Client, client.ip)
			}
		}
		client.reaches(url(mesh.host("server"), 80))
	})
	t.Run("host network", func(t *testing.T) {
		client := plain.as(t).client("host-client", onNode(nodeClient), onHostNetwork)
		for _, server := range servers {
			if _, err := client.get(url(server.Status.PodIP, portHTTP)); err != nil {
				t.Errorf("on %s: %v", server.Spec.NodeName, err)
			}
		}
		client.reaches(url(mesh.host("server"), 80))
	})
	t.Run("enrolled to outside", func(t *testing.T) {
		// The server is not in the mesh, so the client's secret would be seen: another is sent.
		client := mesh.as(t).client("out-client", onNode(nodeClient))
		server := plain.as(t).deploy("server", 1, onNode(nodeServer))[0]
		if out, err := client.exec("app", "get", "--marker="+capture.public, url(server.Status.PodIP, portHTTP)); err != nil {
			t.Error(out, err)
		}
	})
	t.Run("node port", func(t *testing.T) {
		ns, err := netns.Open("/run/netns/" + topology.ControlPlaneNetns)
		if err != nil {
			t.Fatal(err)
		}
		defer ns.Close()
		shape, err := suite.cluster.Topology()
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range shape.All() {
			pods := map[string]int{}
			for range 12 {
				a, err := fetchIn(ns, net.JoinHostPort(n.IP.String(), fmt.Sprint(nodePort)))
				if err != nil {
					t.Errorf("by %s: %v", n.Name, err)
					break
				}
				pods[a.Pod]++
			}
			t.Logf("by %s: %v", n.Name, pods)
		}
	})
}

// testJobs: a pod that ends by itself takes its place in the mesh and leaves it.
func testJobs(t *testing.T) {
	s := enrolled(t, "jobs")
	s.deploy("server", 1, onNode(nodeServer))
	s.service("server")
	template := s.template("job", []option{onNode(nodeClient), withArgs("load", "--url=http://server/", "--requests=100", "--rate=100")})
	template.Spec.RestartPolicy = corev1.RestartPolicyNever
	template.Spec.Containers[0].ReadinessProbe, template.Spec.Containers[0].LivenessProbe = nil, nil
	none := int32(0)
	job, err := suite.client.BatchV1().Jobs(s.name).Create(t.Context(), &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{Name: "job"}, Spec: batchv1.JobSpec{Template: template, BackoffLimit: &none},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, within, "the Job ends", func() error {
		if job, err = suite.client.BatchV1().Jobs(s.name).Get(t.Context(), "job", metav1.GetOptions{}); err != nil {
			return err
		}
		if job.Status.Succeeded+job.Status.Failed == 0 {
			return fmt.Errorf("%+v", job.Status)
		}
		return nil
	})
	log, err := suite.client.CoreV1().Pods(s.name).GetLogs(s.pods("job")[0].Name, &corev1.PodLogOptions{}).DoRaw(t.Context())
	if err != nil || job.Status.Succeeded != 1 {
		t.Errorf("the Job failed: %v\n%s", err, log)
	}
}

// testOptOut: a pod's own label wins over its namespace's, and what the mesh wrote tells who is in.
func testOptOut(t *testing.T) {
	s := enrolled(t, "optout")
	in := s.deploy("in", 1, onNode(nodeServer))[0]
	out := s.deploy("out", 1, onNode(nodeServer), withLabel(modeLabel, "none"))[0]
	plain := outside(t, "optout-plain")
	one := plain.deploy("one", 1, onNode(nodeServer), withLabel(modeLabel, "ambient"))[0]
	for _, c := range []struct {
		pod  corev1.Pod
		want string
	}{{in, "enabled"}, {out, ""}, {one, "enabled"}} {
		eventually(t, within, c.pod.Name+" is told to be in the mesh or not", func() error {
			p, err := suite.client.CoreV1().Pods(c.pod.Namespace).Get(t.Context(), c.pod.Name, metav1.GetOptions{})
			if err == nil && p.Annotations["ambient.istio.io/redirection"] != c.want {
				err = fmt.Errorf("annotation %q, want %q", p.Annotations["ambient.istio.io/redirection"], c.want)
			}
			return err
		})
	}
	client := s.client("client", onNode(nodeClient))
	client.reaches(url(in.Status.PodIP, portHTTP))
	client.reaches(url(one.Status.PodIP, portHTTP))
	if o, err := client.exec("app", "get", "--marker="+capture.public, url(out.Status.PodIP, portHTTP)); err != nil {
		t.Error(o, err)
	}
}
