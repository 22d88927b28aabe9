package network_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tulle-mesh/tulle/internal/netns"
	"github.com/tulle-mesh/tulle/internal/roottest"
	"github.com/tulle-mesh/tulle/meshctl/local/network"
	"github.com/tulle-mesh/tulle/meshctl/local/plan"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fabric makes two nodes with n pods each.
func fabric(t *testing.T, n int) (nodes []*network.Node, pods [][]*network.Pod, addrs [][][2]netip.Addr) {
	t.Helper()
	roottest.Require(t)
	lanNS, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { lanNS.Close() })
	v4, v6 := plan.ControlPlanePrefixes()
	lan, err := network.NewLan(lanNS, v4, v6)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range plan.Nodes(2) {
		node, err := lan.AddNode(network.NodeConfig{Name: p.Name, Lan4: p.Lan4, Lan6: p.Lan6,
			Pods4: p.Pods4, Pods6: p.Pods6, Gateway4: p.Gateway4, Gateway6: p.Gateway6})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { node.NS.Close() })
		nodes = append(nodes, node)
		var list []*network.Pod
		var ips [][2]netip.Addr
		a4, a6 := p.Gateway4, p.Gateway6
		for i := range n {
			a4, a6 = a4.Next(), a6.Next()
			pod, err := node.AddPod(network.PodConfig{Name: fmt.Sprint(i), Link: fmt.Sprintf("pod%d", i), IPv4: a4, IPv6: a6, Gateway4: p.Gateway4, Gateway6: p.Gateway6})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { pod.NS.Close() })
			list = append(list, pod)
			ips = append(ips, [2]netip.Addr{a4, a6})
		}
		pods = append(pods, list)
		addrs = append(addrs, ips)
	}
	if err := lan.Connect(nodes); err != nil {
		t.Fatal(err)
	}
	return nodes, pods, addrs
}

// greet listens in one namespace and dials from another; it returns the source
// address that the listener saw.
func greet(t *testing.T, from, to *netns.NS, ip netip.Addr) netip.Addr {
	t.Helper()
	var ln net.Listener
	err := to.Do(func() (err error) {
		ln, err = net.Listen("tcp", netip.AddrPortFrom(ip, 0).String())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	seen := make(chan netip.Addr, 1)
	go func() {
		c, err := ln.Accept()
		if err != nil {
			close(seen)
			return
		}
		defer c.Close()
		io.Copy(c, c)
		seen <- c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
	}()
	err = from.Do(func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		c, err := new(net.Dialer).DialContext(ctx, "tcp", ln.Addr().String())
		if err != nil {
			return err
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(5 * time.Second))
		if _, err := c.Write([]byte("hello")); err != nil {
			return err
		}
		c.(*net.TCPConn).CloseWrite()
		data, err := io.ReadAll(c)
		if err == nil && string(data) != "hello" {
			err = fmt.Errorf("got %q", data)
		}
		return err
	})
	if err != nil {
		t.Fatalf("dial %v: %v", ip, err)
	}
	return <-seen
}

func TestPodsReachEachOtherOnAndAcrossNodesInBothFamilies(t *testing.T) {
	_, pods, addrs := fabric(t, 2)
	for _, family := range []int{0, 1} {
		for _, to := range [][2]int{{0, 1}, {1, 0}, {1, 1}} {
			target := addrs[to[0]][to[1]][family]
			if got := greet(t, pods[0][0].NS, pods[to[0]][to[1]].NS, target); got != addrs[0][0][family] {
				t.Errorf("pod %v saw source %v, want the pod's own %v", target, got, addrs[0][0][family])
			}
		}
	}
}

func TestTheNodeReachesItsPodsAndThePodsOfOthers(t *testing.T) {
	nodes, pods, addrs := fabric(t, 1)
	for _, family := range []int{0, 1} {
		greet(t, nodes[0].NS, pods[0][0].NS, addrs[0][0][family])
		greet(t, nodes[0].NS, pods[1][0].NS, addrs[1][0][family])
	}
}
