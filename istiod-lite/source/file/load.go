package file

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/tulle-mesh/tulle/istiod-lite/source"
)

// parsed is one file as it was read.
type parsed struct {
	id   identity
	docs []parsedDocument
	// problems are the file's as a whole.
	problems []source.Problem
	// settled is false while a write in the clock tick of the reading could have
	// gone unseen: the file is then read again although its identity is the same.
	settled bool
}

type parsedDocument struct {
	hash [sha256.Size]byte
	line int
	decoded
}

// settledAge is the age from which on a modification time is trusted to change
// with the next write. Coarse file systems count in 2 s.
const settledAge = 2 * time.Second

// writingAge is the age below which a file counts as still being written.
const writingAge = 10 * time.Millisecond

// emptyAge is the age below which a file that has become empty counts as being
// written: shells truncate before they write, and what the file holds must not
// leave the mesh in between.
const emptyAge = time.Second

// load reads the tree as far as it changed since files were read. unsettled
// reports that a file is being written, so that a later load may see more.
func (d *decoder) load(root string, before map[string]*parsed, now time.Time) (files map[string]*parsed, order []entry, dirs map[string]identity, unsettled bool, err error) {
	t, err := walk(root)
	if err != nil {
		return nil, nil, t.dirs, false, err
	}
	files = make(map[string]*parsed, len(t.files))
	for _, e := range t.files {
		prev := before[e.name]
		age := now.Sub(e.mod)
		if age >= 0 && age < writingAge {
			unsettled = true
		}
		if prev != nil && e.id.size == 0 && len(prev.docs) > 0 && age >= 0 && age < emptyAge {
			files[e.name], unsettled = prev, true
			continue
		}
		if prev != nil && prev.settled && prev.id == e.id {
			files[e.name] = prev
			continue
		}
		p, err := d.read(e, prev)
		if errors.Is(err, fs.ErrNotExist) {
			unsettled = true // removed between the walk and the reading
			continue
		}
		if err != nil {
			return nil, nil, t.dirs, unsettled, err
		}
		p.settled = age > settledAge
		files[e.name] = p
	}
	return files, t.files, t.dirs, unsettled, nil
}

// read reads one file and decodes the documents that prev does not hold.
func (d *decoder) read(e entry, prev *parsed) (*parsed, error) {
	p := &parsed{id: e.id}
	content, err := readBounded(e.path)
	if err != nil {
		if errors.Is(err, errTooLarge) {
			p.problems = []source.Problem{{File: e.name, Message: err.Error()}}
			return p, nil
		}
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	docs, err := split(content)
	if err != nil {
		p.problems = []source.Problem{{File: e.name, Message: err.Error()}}
		return p, nil
	}
	known := map[[sha256.Size]byte]*parsedDocument{}
	if prev != nil {
		for i := range prev.docs {
			known[prev.docs[i].hash] = &prev.docs[i]
		}
	}
	p.docs = make([]parsedDocument, 0, len(docs))
	for _, doc := range docs {
		out := parsedDocument{hash: sha256.Sum256(doc.text), line: doc.line}
		if k := known[out.hash]; k != nil {
			out.decoded = k.decoded
		} else {
			out.decoded = d.decode(doc.text)
		}
		p.docs = append(p.docs, out)
	}
	return p, nil
}

var errTooLarge = fmt.Errorf("is larger than %d MiB", maxFileBytes>>20)

func readBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	if err != nil {
		return nil, err
	}
	if len(content) > maxFileBytes {
		return nil, errTooLarge
	}
	return content, nil
}

// assemble builds the Objects of all files, or says what is wrong with them.
func assemble(order []entry, files map[string]*parsed) (*source.Objects, []string, []source.Problem) {
	var (
		builder  = source.NewBuilder()
		problems []source.Problem
		inert    []string
	)
	for _, e := range order {
		p := files[e.name]
		if p == nil {
			continue
		}
		problems = append(problems, p.problems...)
		for _, doc := range p.docs {
			for _, problem := range doc.problems {
				problem.File, problem.Line = e.name, doc.line
				problems = append(problems, problem)
			}
			for _, obj := range doc.objects {
				if problem := builder.Add(obj, source.Origin{File: e.name, Line: doc.line}); problem != nil {
					problems = append(problems, *problem)
				}
			}
			inert = append(inert, doc.inert...)
		}
	}
	if len(problems) > 0 {
		source.SortProblems(problems)
		return nil, inert, problems
	}
	return builder.Build(), inert, nil
}

// Decode reads the documents of one file's content; name is used in problems.
// The objects are usable only when there are no problems.
func Decode(name string, content []byte, check source.Checker) (*source.Objects, []source.Problem) {
	d := &decoder{check: check}
	docs, err := split(content)
	if err != nil {
		return nil, []source.Problem{{File: name, Message: err.Error()}}
	}
	p := &parsed{}
	for _, doc := range docs {
		p.docs = append(p.docs, parsedDocument{line: doc.line, decoded: d.decode(doc.text)})
	}
	objects, _, problems := assemble([]entry{{name: name}}, map[string]*parsed{name: p})
	return objects, problems
}
