// Package catalog knows the images that the tests run: what is in them and where
// it comes from. The product's images hold one static binary each; the images of
// foreign programs are packed from the Debian packages of this machine, with the
// shared libraries that they load.
package catalog

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/tulle-mesh/tulle/e2e/cluster/image"
)

// Names of the test images, as pods have them.
const (
	App      = "tulle.test/app:1"
	Curl     = "tulle.test/curl:1"
	Postgres = "tulle.test/postgres:1"
	Redis    = "tulle.test/redis:1"
	Samples  = "tulle.test/samples:1"
	// Echo is the name that the Gateway API's conformance suite, v1.6.3, asks for.
	Echo = "registry.k8s.io/gateway-api/echo-advanced:v1.5.1"
)

// Registry is where the product's images would be pulled from.
const Registry = "ghcr.io/tulle-mesh"

// Sources is what images are made from.
type Sources struct {
	// Module is the directory of the cluster's module, Bin that of the product's
	// binaries, Version the tag of the product's images.
	Module, Bin, Version string
}

// product lists the binaries that have an image each.
var product = []string{"istiod-lite", "ztunnel", "tulle-agent", "waypoint"}

// shop lists the example's programs; their images are named as the product's.
var shop = []string{"shop-api", "shop-client", "shop-stock", "shop-web"}

// Names lists all images that can be built, by their short names.
func Names() []string {
	return slices.Concat(product, shop, []string{"app", "curl", "echo", "postgres", "redis", "samples"})
}

// Build writes the named images, all if none is named, as NAME.tar into out, and
// returns the archives' paths.
func Build(ctx context.Context, s Sources, out string, names []string) ([]string, error) {
	if len(names) == 0 {
		names = Names()
	}
	archives, errs := make([]string, len(names)), make([]error, len(names))
	var work sync.WaitGroup
	for i, name := range names {
		work.Go(func() {
			spec, err := s.spec(ctx, name)
			if err == nil {
				archives[i] = filepath.Join(out, name+".tar")
				err = image.Write(archives[i], spec)
			}
			if err != nil {
				errs[i] = fmt.Errorf("image %s: %w", name, err)
			}
		})
	}
	work.Wait()
	return archives, errors.Join(errs...)
}

func (s Sources) spec(ctx context.Context, name string) (image.Spec, error) {
	switch {
	case slices.Contains(product, name) || slices.Contains(shop, name):
		return s.binary(name)
	case name == "app":
		return s.app(ctx)
	case name == "curl":
		return curl(ctx)
	case name == "echo":
		return s.echo(ctx)
	case name == "postgres":
		return postgres(ctx)
	case name == "redis":
		return redis(ctx)
	case name == "samples":
		return s.samples()
	}
	return image.Spec{}, fmt.Errorf("unknown; the images are %s", strings.Join(Names(), ", "))
}

// accounts is an /etc/passwd with root, nobody and one more.
func accounts(f *image.Files, name string, uid int) {
	passwd, group := "root:x:0:0:root:/:/sbin/nologin\nnobody:x:65534:65534:nobody:/:/sbin/nologin\n", "root:x:0:\nnobody:x:65534:\n"
	if name != "" {
		passwd += fmt.Sprintf("%s:x:%d:%d:%s:/:/sbin/nologin\n", name, uid, uid, name)
		group += fmt.Sprintf("%s:x:%d:\n", name, uid)
	}
	f.Content("/etc/passwd", 0o644, passwd)
	f.Content("/etc/group", 0o644, group)
	f.Content("/etc/nsswitch.conf", 0o644, "passwd: files\ngroup: files\nhosts: files dns\n")
}

// proxyUID is the account of the product's containers that need no root.
const proxyUID = 1337

func (s Sources) binary(name string) (image.Spec, error) {
	f := image.NewFiles()
	accounts(f, "tulle", proxyUID)
	at := "/usr/local/bin/" + name
	if err := f.Copy(at, filepath.Join(s.Bin, name)); err != nil {
		return image.Spec{}, fmt.Errorf("%w; build the binaries with `make build`", err)
	}
	if s.Version == "" {
		return image.Spec{}, errors.New("no version to tag the image with")
	}
	return image.Spec{Name: fmt.Sprintf("%s/%s:%s", Registry, name, s.Version), Entrypoint: []string{at}, Files: f}, nil
}

// program builds one of the tests' own programs. The layer is written after its
// file is gone, so its bytes are returned.
func (s Sources) program(ctx context.Context, module, pkg string) (string, error) {
	dir, err := os.MkdirTemp("", "tulle-image-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	out := filepath.Join(dir, "program")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", out, pkg)
	cmd.Dir, cmd.Env = module, append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	if b, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build %s in %s: %w\n%s", pkg, module, err, b)
	}
	b, err := os.ReadFile(out)
	return string(b), err
}

// app packs the tests' own program.
func (s Sources) app(ctx context.Context) (image.Spec, error) {
	program, err := s.program(ctx, s.Module, "./app")
	if err != nil {
		return image.Spec{}, err
	}
	f := image.NewFiles()
	accounts(f, "app", 1000)
	f.Content("/usr/local/bin/app", 0o755, program)
	return image.Spec{Name: App, Entrypoint: []string{"/usr/local/bin/app"}, Command: []string{"serve"}, User: "1000", Files: f}, nil
}

// samples packs the program of the examples.
func (s Sources) samples() (image.Spec, error) {
	spec, err := s.binary("samples")
	spec.Name, spec.User = Samples, strconv.Itoa(proxyUID)
	return spec, err
}
