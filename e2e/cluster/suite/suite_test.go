package suite_test

import (
	"os"
	"testing"
)

// TestMesh is everything, in order: what only looks runs together, what disturbs
// the cluster after it and alone, and the judgement of what ran all the while last.
func TestMesh(t *testing.T) {
	if suite == nil {
		t.Skip("no cluster")
	}
	var err error
	if capture, err = startCapture(); err != nil {
		t.Fatal(err)
	}
	db := startDatabase(t)
	t.Run("together", func(t *testing.T) {
		t.Run("traffic", func(t *testing.T) { t.Parallel(); testTraffic(t) })
		t.Run("services", func(t *testing.T) { t.Parallel(); testServices(t) })
		t.Run("outsiders", func(t *testing.T) { t.Parallel(); testOutsiders(t) })
		t.Run("jobs", func(t *testing.T) { t.Parallel(); testJobs(t) })
		t.Run("policy", func(t *testing.T) { t.Parallel(); testPolicy(t) })
		t.Run("strict", func(t *testing.T) { t.Parallel(); testStrict(t) })
		t.Run("optout", func(t *testing.T) { t.Parallel(); testOptOut(t) })
	})
	// Those of whose requests none may fail, after what eats the machine.
	t.Run("changes", func(t *testing.T) {
		t.Run("membership", func(t *testing.T) { t.Parallel(); testMembership(t) })
		t.Run("rollout", func(t *testing.T) { t.Parallel(); testRollout(t) })
		t.Run("waypoint", func(t *testing.T) { t.Parallel(); testWaypoint(t) })
		t.Run("scale", func(t *testing.T) { t.Parallel(); testScaleToZero(t) })
	})
	t.Run("istiod", testIstiodDeleted)
	t.Run("cni", testCNIConfigOverwritten)
	t.Run("agent", testAgentDeleted)
	t.Run("ztunnel", func(t *testing.T) { db.mayBreak("ztunnel deleted"); testZtunnelDeleted(t) })
	t.Run("kubelet", testKubeletStopped)
	t.Run("network", testNetworkCut)
	t.Run("reboot", testNodeReboot)
	t.Run("database", db.check)
	t.Run("plaintext", capture.check)
}

// running tells that the cluster is not the run's own.
func running() bool { return os.Getenv("TULLE_E2E_RUNNING") == "1" }
