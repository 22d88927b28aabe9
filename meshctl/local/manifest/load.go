package manifest

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strings"

	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"
	goyaml "sigs.k8s.io/yaml/goyaml.v2"
)

// Document is one YAML document as JSON, with the place where it was found.
type Document struct {
	// File is the path as the user wrote it; Index counts its documents from 1.
	File  string
	Index int
	// Dir is the absolute folder of File: the working directory of the pods that
	// it describes, unless they name another.
	Dir string
	// Layer counts the -f arguments from 0. An object of a later layer replaces
	// the one of the same name in an earlier layer.
	Layer int
	JSON  []byte
}

// Load reads and decodes files, and folders of files that end in .yaml, .yml or
// .json (not their sub-folders). Each path is a layer; see Document.Layer. All
// errors are reported together.
func Load(paths []string) (*Set, error) {
	docs, err := Read(paths)
	if err != nil {
		return nil, err
	}
	return Parse(docs)
}

// Read is the first half of Load: it splits the files without decoding objects.
func Read(paths []string) ([]Document, error) {
	var (
		docs []Document
		errs []error
	)
	for layer, path := range paths {
		files, err := filesOf(path)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for _, file := range files {
			d, err := readFile(file, layer)
			docs = append(docs, d...)
			if err != nil {
				errs = append(errs, err)
			}
		}
	}
	if len(docs) > maxDocuments {
		errs = append(errs, fmt.Errorf("%d objects given, the local mesh takes at most %d", len(docs), maxDocuments))
	}
	return docs, errors.Join(errs...)
}

func filesOf(path string) ([]string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("-f %s: %w", path, errors.Unwrap(err))
	}
	if !info.IsDir() {
		return []string{path}, nil
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, fmt.Errorf("-f %s: %w", path, err)
	}
	var files []string
	for _, e := range entries {
		if e.IsDir() || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		switch filepath.Ext(e.Name()) {
		case ".yaml", ".yml", ".json":
			files = append(files, filepath.Join(path, e.Name()))
		}
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("-f %s: the folder has no .yaml, .yml or .json file (sub-folders are not read; name them with a further -f)", path)
	}
	sort.Strings(files)
	return files, nil
}

func readFile(path string, layer int) ([]Document, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if len(data) > maxFileBytes {
		return nil, fmt.Errorf("%s: larger than %d MiB", path, maxFileBytes>>20)
	}
	abs, err := filepath.Abs(filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return split(data, Document{File: path, Dir: abs, Layer: layer})
}

// split cuts data into documents; place gives the rest of each.
func split(data []byte, place Document) ([]Document, error) {
	var (
		docs   []Document
		errs   []error
		reader = utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(data)))
	)
	for index := 1; ; index++ {
		text, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return docs, errors.Join(errs...)
		}
		d := place
		d.Index = index
		if err != nil {
			return docs, errors.Join(append(errs, fmt.Errorf("%s: %w", d.where(), err))...)
		}
		js, err := yaml.YAMLToJSONStrict(text)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", d.where(), err))
			continue
		}
		if bytes.Equal(bytes.TrimSpace(js), []byte("null")) {
			index-- // only comments: people do not count it
			continue
		}
		if err := onlyOne(text); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", d.where(), err))
			continue
		}
		d.JSON = js
		docs = append(docs, d)
	}
}

// onlyOne refuses text with a second document (behind a line of dots, or behind
// an object in braces), which the YAML library would pass over in silence.
func onlyOne(text []byte) error {
	dec := goyaml.NewDecoder(bytes.NewReader(text))
	var v any
	if err := dec.Decode(&v); err != nil {
		return err
	}
	if err := dec.Decode(&v); !errors.Is(err, io.EOF) {
		return errors.New(`more follows the object: put a line with "---" between two`)
	}
	return nil
}

func (d Document) where() string { return fmt.Sprintf("%s: document %d", d.File, d.Index) }
