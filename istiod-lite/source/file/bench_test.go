package file_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/zap"

	"github.com/tulle-mesh/tulle/istiod-lite/source/file"
)

func pods(n int) []string {
	docs := make([]string, n)
	for i := range docs {
		docs[i] = fmt.Sprintf(`apiVersion: v1
kind: Pod
metadata:
  name: web-%d
  namespace: shop
  labels: {app: web}
spec:
  nodeName: n1
  serviceAccountName: web
  containers:
  - name: web
    ports: [{name: http, containerPort: 8080}]
status:
  phase: Running
  podIP: 10.%d.%d.%d
  conditions: [{type: Ready, status: "True"}]
`, i, i/62500, i/250%250, i%250+1)
	}
	return docs
}

func joined(docs []string) []byte {
	var b bytes.Buffer
	for _, d := range docs {
		b.WriteString("---\n")
		b.WriteString(d)
	}
	return b.Bytes()
}

// BenchmarkLoadOneChangedPodInOneFile reads a file of 10,000 pods again after
// one of them changed: the documents that did not are not decoded.
func BenchmarkLoadOneChangedPodInOneFile(b *testing.B) {
	path := filepath.Join(b.TempDir(), "pods.yaml")
	docs := pods(10_000)
	write := func() {
		if err := os.WriteFile(path, joined(docs), 0o644); err != nil {
			b.Fatal(err)
		}
	}
	write()
	src, err := file.New(file.Config{Path: path, RootNamespace: "istio-system", Logger: zap.NewNop()})
	if err != nil {
		b.Fatal(err)
	}
	src.Load()
	i := 0
	for b.Loop() {
		b.StopTimer()
		i++
		docs[5000] = fmt.Sprintf("apiVersion: v1\nkind: Pod\nmetadata: {name: web-5000, namespace: shop}\nstatus: {podIP: 10.250.%d.%d}\n", i/250%250, i%250+1)
		write()
		b.StartTimer()
		src.Load()
	}
	if src.Objects() == nil || len(src.Objects().Pods) != 10_000 {
		b.Fatalf("%+v", src.Status())
	}
}

// BenchmarkDecode reads 1,000 pods for the first time.
func BenchmarkDecode(b *testing.B) {
	content := joined(pods(1000))
	b.SetBytes(int64(len(content)))
	for b.Loop() {
		if _, problems := file.Decode("pods.yaml", content, checker); len(problems) > 0 {
			b.Fatal(problems)
		}
	}
}
