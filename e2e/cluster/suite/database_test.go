package suite_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tulle-mesh/tulle/e2e/cluster/catalog"
)

// database is PostgreSQL under pgbench, client and server on different nodes, from
// the first test to the last. One pgbench keeps its connections, another opens one
// per transaction. Both run slice after slice; a slice tells what became of it.
type database struct {
	space *space
	// allowed are the reasons for which slices may fail, told by tests that break connections.
	allowed []string
}

// pgbenchScript is a transfer, as TPC-B has it, with the secret in its text.
const pgbenchScript = `\set aid random(1, 100000)
\set delta random(-5000, 5000)
BEGIN;
UPDATE pgbench_accounts SET abalance = abalance + :delta WHERE aid = :aid AND '%[1]s' = '%[1]s';
UPDATE pgbench_tellers SET tbalance = tbalance + :delta WHERE tid = 1;
UPDATE pgbench_branches SET bbalance = bbalance + :delta WHERE bid = 1;
END;
`

// slice runs pgbench again and again; each run ends with a line that is counted.
const slice = `while :; do
  if pgbench -n -h pg -U postgres -f /script/transfer.sql %s -T 4 postgres; then echo SLICE passed; else echo SLICE failed; sleep 0.2; fi
done`

func startDatabase(t *testing.T) *database {
	t.Helper()
	s := enrolled(t, "database")
	s.begun = time.Now()
	s.apply(fmt.Sprintf(`
apiVersion: v1
kind: ConfigMap
metadata: {name: script}
data: {transfer.sql: %q}
---
apiVersion: v1
kind: Service
metadata: {name: pg}
spec: {selector: {app: pg}, ports: [{name: tcp-postgres, port: 5432}]}
---
apiVersion: v1
kind: Pod
metadata: {name: pg, labels: {app: pg}}
spec:
  nodeSelector: {kubernetes.io/hostname: %s}
  containers:
  - name: pg
    image: %s
    args: [-c, fsync=off]
    env: [{name: PGDATA, value: /data/pg}]
    ports: [{containerPort: 5432}]
    readinessProbe: {tcpSocket: {port: 5432}, periodSeconds: 1}
    volumeMounts: [{name: data, mountPath: /data}]
  volumes: [{name: data, emptyDir: {}}]
`, fmt.Sprintf(pgbenchScript, s.marker), nodeServer, catalog.Postgres))
	s.ready("pg", 1)
	s.apply(fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: pgbench, labels: {app: pgbench}}
spec:
  nodeSelector: {kubernetes.io/hostname: %s}
  terminationGracePeriodSeconds: 1
  initContainers:
  - {name: fill, image: %s, command: [pgbench, -i, -q, -h, pg, -U, postgres, postgres]}
  containers:
  - {name: kept, image: %[2]s, command: [sh, -c, %[3]q], volumeMounts: [{name: script, mountPath: /script}]}
  - {name: fresh, image: %[2]s, command: [sh, -c, %[4]q], volumeMounts: [{name: script, mountPath: /script}]}
  volumes: [{name: script, configMap: {name: script}}]
`, nodeClient, catalog.Postgres, fmt.Sprintf(slice, "-c 2 -R 20"), fmt.Sprintf(slice, "-c 2 -C -R 10")))
	s.ready("pgbench", 1)
	return &database{space: s}
}

// mayBreak tells that slices may fail from now on.
func (d *database) mayBreak(why string) { d.allowed = append(d.allowed, why) }

// counts reads what a pgbench has told so far.
func (d *database) counts(container string) (passed, failed, transactions int, errs []string, err error) {
	b, err := suite.client.CoreV1().Pods(d.space.name).GetLogs("pgbench", &corev1.PodLogOptions{Container: container, Timestamps: true}).DoRaw(d.space.t.Context())
	if err != nil {
		return 0, 0, 0, nil, err
	}
	for sc := bufio.NewScanner(bytes.NewReader(b)); sc.Scan(); {
		line := sc.Text()
		switch {
		case strings.HasSuffix(line, "SLICE passed"):
			passed++
		case strings.HasSuffix(line, "SLICE failed"):
			failed++
		case strings.Contains(line, "transactions actually processed:"):
			n, _ := strconv.Atoi(strings.TrimSpace(line[strings.LastIndex(line, ":")+1:]))
			transactions += n
		case strings.Contains(line, "error:") || strings.Contains(line, "aborted"):
			errs = append(errs, line)
		}
	}
	return passed, failed, transactions, errs, nil
}

// check waits for one more slice of each kind and judges all of them: none failed
// unless a test said that it may, and the sums of the accounts are right.
func (d *database) check(t *testing.T) {
	d.space.t = t
	for _, container := range []string{"kept", "fresh"} {
		before, _, _, _, err := d.counts(container)
		if err != nil {
			t.Fatal(err)
		}
		var failed, transactions int
		var errs []string
		eventually(t, within, "pgbench passes again", func() error {
			var passed int
			if passed, failed, transactions, errs, err = d.counts(container); err == nil && passed < before+2 {
				err = fmt.Errorf("%d slices", passed)
			}
			return err
		})
		t.Logf("pgbench with %s connections: %d transactions, %d slices failed", container, transactions, failed)
		for _, e := range errs {
			t.Log(e)
		}
		if failed > 0 && len(d.allowed) == 0 {
			t.Errorf("%d slices failed though nothing was done that breaks connections", failed)
		}
		if transactions == 0 {
			t.Error("no transactions")
		}
	}
	pods := suite.client.CoreV1().Pods(d.space.name)
	zero := int64(0)
	if err := pods.Delete(t.Context(), "pgbench", metav1.DeleteOptions{GracePeriodSeconds: &zero}); err != nil {
		t.Fatal(err)
	}
	eventually(t, within, "the books balance", func() error {
		out, err := d.space.exec("pg", "psql", "-h", "127.0.0.1", "-U", "postgres", "-At", "-c",
			"SELECT (SELECT sum(abalance) FROM pgbench_accounts), (SELECT sum(tbalance) FROM pgbench_tellers), (SELECT sum(bbalance) FROM pgbench_branches)")
		if err != nil {
			return err
		}
		sums := strings.Split(strings.TrimSpace(out), "|")
		if len(sums) != 3 || sums[0] != sums[1] || sums[1] != sums[2] {
			return errors.New(out)
		}
		return nil
	})
}
