package file_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	goyaml "sigs.k8s.io/yaml/goyaml.v2"

	"github.com/tulle-mesh/tulle/istiod-lite/source/file"
	"github.com/tulle-mesh/tulle/istiod-lite/translate"
)

func seeds(t interface{ Fatal(...any) }) [][]byte {
	paths, err := filepath.Glob("../../translate/testdata/*.in.yaml")
	if err != nil || len(paths) == 0 {
		t.Fatal("no seeds", err)
	}
	var all [][]byte
	for _, p := range paths {
		content, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, content)
	}
	return append(all, []byte(kubectlPod), []byte(fmt.Sprintf(policy, "{}")))
}

// documents counts the documents that hold anything.
func documents(content []byte) (n int) {
	dec := goyaml.NewDecoder(bytes.NewReader(content))
	for {
		var v any
		if dec.Decode(&v) != nil {
			return n
		}
		n++
	}
}

// FuzzDecode feeds the source anything: it must not panic, must not take what
// it also calls wrong, and what it takes must translate.
func FuzzDecode(f *testing.F) {
	for _, s := range seeds(f) {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		objects, problems := file.Decode("f.yaml", content, checker)
		if (objects == nil) != (len(problems) > 0) {
			t.Fatalf("objects %v beside problems %v", objects, problems)
		}
		if objects != nil && bytes.IndexByte(content, '{') < 0 {
			// What is taken, the YAML library's own count of documents agrees with.
			if want := documents(content); objects.Len() > want {
				t.Fatalf("%d objects of %d documents", objects.Len(), want)
			}
		}
		for _, p := range problems {
			if p.Message == "" || p.Error() == "" {
				t.Fatalf("a problem that says nothing: %+v", p)
			}
		}
		if objects != nil {
			translate.Translate(objects, translate.Options{})
		}
	})
}

// TestTruncatedFilesAreRefusedOrWhole cuts every seed all over, and each of its
// documents, which are read one by one, more finely: nothing panics, and what is
// taken translates. That a cut may be a valid shorter file is YAML's nature, and
// why files are replaced in one step.
func TestTruncatedFilesAreRefusedOrWhole(t *testing.T) {
	cut := func(s []byte, step int) {
		if testing.Short() {
			step *= 13
		}
		for n := 0; n < len(s); n += step {
			if objects, problems := file.Decode("f.yaml", s[:n], checker); objects != nil {
				translate.Translate(objects, translate.Options{})
			} else if len(problems) == 0 {
				t.Fatalf("neither objects nor problems for %q", s[:n])
			}
		}
	}
	for _, s := range seeds(t) {
		cut(s, 1+len(s)/50)
		for doc := range bytes.SplitSeq(s, []byte("\n---\n")) {
			cut(doc, 1+len(doc)/200)
		}
	}
}
