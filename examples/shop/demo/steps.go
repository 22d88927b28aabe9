package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"
)

// settleTimeout bounds the waits for things that take a moment: a policy on its
// way, a connection that closes.
const settleTimeout = 20 * time.Second

// orders is how many orders the latency is measured with.
const orders = 300

// demo carries from step to step what later ones compare with.
type demo struct {
	mesh
	shop, marker string
	before       status
	fast         latency // without mesh
	supervisor   int
	namespaces   []string // the pods' network namespaces, as /proc names them
}

type latency struct{ P50, P99 time.Duration }

func marker() string {
	var b [4]byte
	rand.Read(b[:])
	return "birthday-cake-" + hex.EncodeToString(b[:])
}

func (d *demo) start(ctx context.Context) error {
	d.say.title("A shop on two nodes, without a mesh")
	d.say.text("A frontend, an API and a stock; every hop crosses from one node to the other.")
	if _, err := d.run(ctx, "local", "up", "-f", d.shop); err != nil {
		return err
	}
	st, err := d.status(ctx)
	if err != nil {
		return err
	}
	d.before, d.supervisor = st, st.SupervisorPID
	for _, p := range st.Pods {
		if ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", p.Containers[0].HostPID)); err == nil {
			d.namespaces = append(d.namespaces, ns)
		}
	}
	for _, p := range st.Pods {
		if p.Mesh != "out" {
			return fmt.Errorf("pod %s is %q, but nobody has asked for a mesh yet", p.Name, p.Mesh)
		}
	}
	d.say.good("%d pods run, none of them in the mesh", len(st.Pods))
	return nil
}

func (d *demo) plaintext(ctx context.Context) error {
	d.say.title("An order, and what the wire between the nodes sees of it")
	r, err := d.capture(ctx, d.marker, func() error { return d.order(ctx, "client") })
	if err != nil {
		return err
	}
	d.say.output(d.say.mark(printable(r.Example), d.marker))
	if r.Found == 0 {
		return errors.New("the note was expected on the wire in plaintext, and was not seen")
	}
	d.say.good("everybody on the wire can read the note: it was in %d packets", r.Found)
	d.fast, err = d.measure(ctx)
	return err
}

func (d *demo) join(ctx context.Context) error {
	d.say.title("The namespace joins the mesh: one label")
	d.say.output("istio.io/dataplane-mode: ambient")
	if _, err := d.run(ctx, "local", "up", "-f", d.shop, "-f", d.step("1-ambient.yaml")); err != nil {
		return err
	}
	st, err := d.status(ctx)
	if err != nil {
		return err
	}
	for i, p := range st.Pods {
		old := d.before.Pods[i]
		if p.Name != old.Name || p.Containers[0] != old.Containers[0] {
			return fmt.Errorf("pod %s was process %d and is %s, process %d", old.Name, old.Containers[0].HostPID, p.Name, p.Containers[0].HostPID)
		}
		if p.Mesh != "in" {
			return fmt.Errorf("pod %s is not in the mesh but %q", p.Name, p.Mesh)
		}
		d.say.output(fmt.Sprintf("%-20s process %d as before, now %s", p.Name, p.Containers[0].HostPID, p.Identity))
	}
	d.say.good("all %d pods are in the mesh; no process was touched", len(st.Pods))
	return d.wait(ctx, "connections from before go on in plaintext until they close", func() error {
		st, err := d.status(ctx)
		for _, p := range st.Pods {
			if p.OlderConnections > 0 {
				return fmt.Errorf("pod %s still has %d connections from before", p.Name, p.OlderConnections)
			}
		}
		return err
	})
}

func (d *demo) encrypted(ctx context.Context) error {
	d.say.title("The same order again, and the same look at the wire")
	r, err := d.capture(ctx, d.marker, func() error { return d.order(ctx, "client") })
	if err != nil {
		return err
	}
	tunnel := int64(0)
	for _, f := range r.Flows {
		switch {
		case (f.Protocol == "tcp" || f.Protocol == "udp") && f.Port == 15008:
			tunnel += f.PayloadBytes
			d.say.output(fmt.Sprintf("%s port %d: %d packets, %d bytes: the mesh's tunnels, TLS 1.3", f.Protocol, f.Port, f.Packets, f.PayloadBytes))
		case f.Protocol == "tcp" && f.Port == 15012:
			d.say.output(fmt.Sprintf("tcp port %d: %d packets: the control plane, TLS 1.3", f.Port, f.Packets))
		case f.Protocol == "arp" || f.Protocol == "icmp":
			d.say.output(fmt.Sprintf("%s: %d packets: the nodes finding each other", f.Protocol, f.Packets))
		default:
			return fmt.Errorf("%s port %d: %d packets with %d bytes went over the wire outside the tunnels", f.Protocol, f.Port, f.Packets, f.PayloadBytes)
		}
	}
	if r.Found > 0 {
		return fmt.Errorf("the note was still seen in plaintext, in %d packets", r.Found)
	}
	if tunnel == 0 {
		return errors.New("nothing was seen in a tunnel either: the order took another way")
	}
	d.say.good("0 bytes in plaintext; the note was not seen")
	return nil
}

// logLine is what an access log line says of a connection.
var logLine = regexp.MustCompile(`(\S+)=("(?:[^"\\]|\\.)*"|\S+)`)

func fields(line string) map[string]string {
	m := map[string]string{}
	for _, f := range logLine.FindAllStringSubmatch(line, -1) {
		m[f[1]] = strings.Trim(f[2], `"`)
	}
	return m
}

func (d *demo) identities(ctx context.Context) error {
	d.say.title("Who spoke to whom, from the access log")
	want := [][2]string{{"client", "web"}, {"web", "api"}, {"api", "stock"}}
	lines := map[[2]string]string{}
	err := d.wait(ctx, "", func() error {
		for _, node := range []string{"node-1", "node-2"} {
			log, err := d.quiet(ctx, "local", "logs", "ztunnel", "--node", node)
			if err != nil {
				return err
			}
			for line := range strings.Lines(log) {
				f := fields(line)
				pair := [2]string{account(f["src.identity"]), account(f["dst.identity"])}
				if f["direction"] != "inbound" || lines[pair] != "" || pair[0] == "" || pair[1] == "" || f["error"] != "" {
					continue
				}
				lines[pair] = fmt.Sprintf("%-40s ──▶ %-40s %s bytes there, %s back", f["src.identity"], f["dst.identity"], f["bytes_recv"], f["bytes_sent"])
			}
		}
		for _, pair := range want {
			if lines[pair] == "" {
				return fmt.Errorf("no access log line with both identities for %s → %s", pair[0], pair[1])
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, pair := range want {
		d.say.output(lines[pair])
	}
	d.say.good("every hop carries the identities of both ends (meshctl local logs ztunnel)")
	return nil
}

// account is the service account in a SPIFFE ID.
func account(id string) string {
	if !strings.HasPrefix(id, "spiffe://") {
		return ""
	}
	return id[strings.LastIndex(id, "/")+1:]
}

func (d *demo) policy(ctx context.Context) error {
	d.say.title("A policy: interns may not reach the frontend")
	if err := d.order(ctx, "intern"); err != nil {
		return fmt.Errorf("the intern was to be served before the policy: %w", err)
	}
	if _, err := d.run(ctx, "local", "up", "-f", d.shop, "-f", d.step("1-ambient.yaml"), "-f", d.step("2-deny-intern.yaml")); err != nil {
		return err
	}
	err := d.wait(ctx, "", func() error {
		if _, err := d.quiet(ctx, d.orderArgs("intern")...); err == nil {
			return errors.New("the intern is still served")
		}
		return nil
	})
	if err != nil {
		return err
	}
	d.say.command("meshctl " + quote(d.orderArgs("intern")))
	_, err = d.quiet(ctx, d.orderArgs("intern")...)
	if err == nil {
		return errors.New("the intern is served again")
	}
	d.say.output(err.Error()[strings.LastIndex(err.Error(), "shop-client:"):])
	reason := ""
	err = d.wait(ctx, "", func() error {
		for _, node := range []string{"node-1", "node-2"} {
			log, err := d.quiet(ctx, "local", "logs", "ztunnel", "--node", node)
			if err != nil {
				return err
			}
			for line := range strings.Lines(log) {
				if strings.Contains(line, "no-interns") && strings.Contains(line, "error=") {
					reason = strings.TrimSpace(line)
					return nil
				}
			}
		}
		return errors.New("no line of the access log names the policy no-interns")
	})
	if err != nil {
		return err
	}
	f := fields(reason)
	d.say.output(d.say.mark(fmt.Sprintf("%s  ──▶  %s: %s", f["src.identity"], f["dst.workload"], f["error"]), "no-interns"))
	if err := d.order(ctx, "client"); err != nil {
		return fmt.Errorf("the policy was for the intern only: %w", err)
	}
	d.say.good("the intern is refused and the log says why; the client is served as before")
	return nil
}

func (d *demo) certificates(ctx context.Context) error {
	d.say.title("The certificates, as the proxies hold them")
	if _, err := d.run(ctx, "cert", "status"); err != nil {
		return err
	}
	out, err := d.quiet(ctx, "cert", "status", "-o", "json")
	if err != nil {
		return err
	}
	var certs []struct {
		Identity, Node, State string
		LeftSeconds           int64
	}
	if err := json.Unmarshal([]byte(out), &certs); err != nil {
		return err
	}
	st, err := d.status(ctx)
	if err != nil {
		return err
	}
	for _, p := range st.Pods {
		found := false
		for _, c := range certs {
			found = found || c.Identity == p.Identity && c.Node == p.Node && c.State == "valid" && c.LeftSeconds > 0
		}
		if !found {
			return fmt.Errorf("pod %s has no valid certificate on %s", p.Name, p.Node)
		}
	}
	d.say.good("%d identities, each valid on the node of its pods and nowhere else", len(certs))
	return nil
}

func (d *demo) cost(ctx context.Context) error {
	d.say.title("What it costs")
	before, err := d.status(ctx)
	if err != nil {
		return err
	}
	after, err := d.measure(ctx)
	if err != nil {
		return err
	}
	st, err := d.status(ctx)
	if err != nil {
		return err
	}
	d.say.output(fmt.Sprintf("%d orders, three hops each     half within   99%% within", orders))
	d.say.output(fmt.Sprintf("without the mesh               %8s      %8s", ms(d.fast.P50), ms(d.fast.P99)))
	d.say.output(fmt.Sprintf("in the mesh                    %8s      %8s", ms(after.P50), ms(after.P99)))
	d.say.output(" ")
	d.say.output(fmt.Sprintf("%-14s %-12s %10s   %s", "where", "what", "memory", fmt.Sprintf("CPU for these %d orders", orders)))
	row := func(where string, was, is component) {
		d.say.output(fmt.Sprintf("%-14s %-12s %6.1f MiB   %.2f s", where, is.Name, float64(is.ResidentBytes)/(1<<20), is.CPUSeconds-was.CPUSeconds))
	}
	row("control plane", before.ControlPlane, st.ControlPlane)
	for i, n := range st.Nodes {
		for j, c := range n.Components {
			row(n.Name, before.Nodes[i].Components[j], c)
			if c.ResidentBytes == 0 {
				return fmt.Errorf("%s of %s does not run", c.Name, n.Name)
			}
		}
	}
	d.say.good("measured on this machine, with everything on it sharing the same cores")
	return nil
}

func ms(t time.Duration) string { return fmt.Sprintf("%.2f ms", float64(t.Microseconds())/1000) }

// down cleans up, also after an interrupt.
func (d *demo) down() error {
	d.say.title("Cleaning up")
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if _, err := d.run(ctx, "local", "down"); err != nil {
		return err
	}
	if _, err := os.Stat(d.state); !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%s is still there", d.state)
	}
	if d.supervisor != 0 {
		err := d.wait(ctx, "", func() error {
			if syscall.Kill(d.supervisor, 0) == nil {
				return fmt.Errorf("process %d still runs", d.supervisor)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	links, err := filepath.Glob("/proc/[0-9]*/ns/net")
	if err != nil {
		return err
	}
	for _, link := range links {
		if ns, err := os.Readlink(link); err == nil && slices.Contains(d.namespaces, ns) {
			return fmt.Errorf("%s still holds a pod's network namespace", filepath.Dir(filepath.Dir(link)))
		}
	}
	d.say.good("nothing is left: no process, no network namespace, no file")
	return nil
}

// kept says what to try.
func (d *demo) kept() {
	d.say.title("The mesh is left up; look around")
	for _, line := range []string{
		"export TULLE_STATE_DIR=" + d.state + " PATH=" + filepath.Dir(d.bin) + ":$PATH",
		"meshctl local status",
		"meshctl local exec client -- shop-client --note 'for me' -n 1000",
		"meshctl local exec client -- sh",
		"meshctl local logs ztunnel --node node-1 -f",
		"meshctl local capture --node node-1 --for 10s",
		"meshctl cert status",
		"meshctl local down",
	} {
		d.say.command(line)
	}
}

func (d *demo) step(name string) string { return filepath.Join(d.shop, "steps", name) }

func (d *demo) orderArgs(who string) []string {
	return []string{"local", "exec", who, "--", "shop-client", "--note", d.marker, "--timeout", "5s"}
}

func (d *demo) order(ctx context.Context, who string) error {
	_, err := d.run(ctx, d.orderArgs(who)...)
	return err
}

func (d *demo) measure(ctx context.Context) (latency, error) {
	var l latency
	out, err := d.quiet(ctx, "local", "exec", "client", "--", "shop-client", "-n", fmt.Sprint(orders), "--json")
	if err == nil {
		err = json.Unmarshal([]byte(out), &l)
	}
	return l, err
}

// wait repeats f until it returns nil, and gives up with its last error.
func (d *demo) wait(ctx context.Context, why string, f func() error) error {
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	for told := false; ; {
		err := f()
		if err == nil {
			return nil
		}
		if why != "" && !told {
			d.say.text("%s", why)
			told = true
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// printable shows bytes that may be anything.
func printable(b []byte) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r >= ' ' && r <= '~' {
			return r
		}
		return -1
	}, string(b))
}
