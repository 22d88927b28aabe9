package mesh_test

import (
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
)

// Sizes of what the servers serve.
const fileBytes = 32 << 20

// program is one pod: where it runs and what.
type program struct {
	namespace, name, node string
	command               []string
	ports                 []int
	runAs                 string // a user's name; empty is root
}

// writePods prepares the servers' data and writes the objects of all pods:
// servers on node-2, clients on node-1, in namespaces of which "outside" is not enrolled.
func (m *mesh) writePods() error {
	pg := m.dir("pg")
	if err := initPostgres(pg); err != nil {
		return err
	}
	www := m.dir("www")
	if err := os.WriteFile(filepath.Join(www, "file"), []byte(strings.Repeat("0123456789abcde\n", fileBytes/16)), 0o644); err != nil {
		return err
	}
	nginx := filepath.Join(www, "nginx.conf")
	if err := os.WriteFile(nginx, fmt.Appendf(nil, nginxConf, www), 0o644); err != nil {
		return err
	}
	sleep := []string{"sleep", "infinity"}
	peer := []string{filepath.Join(m.bin, "peer"), "serve"}
	peerPorts := []int{7000, 7001, 7002, 7003, 7004, 7005, 7006}
	pods := []program{
		{"data", "postgres", "node-2", []string{filepath.Join(postgresPath(), "postgres"), "-D", pg, "-k", pg, "-c", "listen_addresses=*", "-c", "fsync=off"}, []int{5432}, "postgres"},
		{"data", "redis", "node-2", []string{"redis-server", "--bind", "*", "-::*", "--protected-mode", "no", "--save", ""}, []int{6379}, ""},
		{"data", "nginx", "node-2", []string{"nginx", "-c", nginx, "-g", "daemon off;"}, []int{80}, ""},
		{"data", "iperf", "node-2", []string{"iperf3", "-s"}, []int{5201}, ""},
		{"data", "peer", "node-2", peer, peerPorts, ""},
		{"data", "webpeer", "node-2", []string{filepath.Join(m.bin, "peer"), "web"}, []int{8080, 8081}, ""},
		{"apps", "client", "node-1", sleep, nil, ""},
		{"apps", "other", "node-1", sleep, nil, ""},
		{"outside", "stranger", "node-1", sleep, nil, ""},
		{"outside", "peer", "node-2", peer, peerPorts, ""},
	}
	var out strings.Builder
	for _, ns := range []string{"data", "apps", "outside"} {
		fmt.Fprintf(&out, "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: %s\n", ns)
		if ns != "outside" {
			out.WriteString("  labels: {istio.io/dataplane-mode: ambient}\n")
		}
		out.WriteString("---\n")
	}
	for _, p := range pods {
		out.WriteString(p.objects())
	}
	return os.WriteFile(filepath.Join(m.conf, "pods.yaml"), []byte(out.String()), 0o644)
}

// objects are the service account, the pod and, where it has ports, the service.
func (p program) objects() string {
	var out strings.Builder
	fmt.Fprintf(&out, "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: %s, namespace: %s}\n---\n", p.name, p.namespace)
	fmt.Fprintf(&out, "apiVersion: v1\nkind: Pod\nmetadata:\n  name: %s\n  namespace: %s\n  labels: {app: %s}\nspec:\n  serviceAccountName: %s\n  nodeName: %s\n  containers:\n  - name: main\n    image: local\n    command: [", p.name, p.namespace, p.name, p.name, p.node)
	for i, arg := range p.command {
		if i > 0 {
			out.WriteString(", ")
		}
		out.WriteString(strconv.Quote(arg))
	}
	out.WriteString("]\n")
	if p.runAs != "" {
		if u, err := user.Lookup(p.runAs); err == nil {
			fmt.Fprintf(&out, "    securityContext: {runAsUser: %s, runAsGroup: %s}\n", u.Uid, u.Gid)
		}
	}
	out.WriteString("---\n")
	if len(p.ports) > 0 {
		fmt.Fprintf(&out, "apiVersion: v1\nkind: Service\nmetadata: {name: %s, namespace: %s}\nspec:\n  selector: {app: %s}\n  ipFamilyPolicy: PreferDualStack\n  ports:\n", p.name, p.namespace, p.name)
		for _, port := range p.ports {
			fmt.Fprintf(&out, "  - {name: p%d, port: %d}\n", port, port)
		}
		out.WriteString("---\n")
	}
	return out.String()
}

const nginxConf = `
worker_processes 1;
error_log stderr;
pid %[1]s/nginx.pid;
events { worker_connections 4096; }
http {
  access_log off;
  client_body_temp_path %[1]s/body;
  proxy_temp_path %[1]s/proxy;
  fastcgi_temp_path %[1]s/fastcgi;
  uwsgi_temp_path %[1]s/uwsgi;
  scgi_temp_path %[1]s/scgi;
  server { listen 80; listen [::]:80; root %[1]s; }
}
`

// dir makes a folder below the mesh's root that any user may enter.
func (m *mesh) dir(name string) string {
	path := filepath.Join(m.root, name)
	if err := os.Mkdir(path, 0o755); err != nil {
		panic(err) // the root is fresh and ours
	}
	return path
}

func postgresPath() string {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if len(found) == 0 {
		return ""
	}
	return filepath.Dir(found[len(found)-1])
}

// initPostgres makes a database cluster that trusts every client.
func initPostgres(dir string) error {
	for _, args := range [][]string{
		{"chown", "postgres:", dir},
		{"chmod", "0700", dir},
		{"runuser", "-u", "postgres", "--", filepath.Join(postgresPath(), "initdb"), "-D", dir, "-A", "trust", "-E", "UTF8", "--locale=C", "-N"},
		{"sh", "-c", "printf 'host all all 0.0.0.0/0 trust\\nhost all all ::/0 trust\\n' >> " + filepath.Join(dir, "pg_hba.conf")},
	} {
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Dir = "/"
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%v: %w\n%s", args, err, out)
		}
	}
	return nil
}
