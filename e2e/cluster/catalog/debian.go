package catalog

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/tulle-mesh/tulle/e2e/cluster/image"
)

// system has the links of a merged /usr, so that paths of both kinds are one, and
// a shell with the few tools that scripts and people want.
func system(ctx context.Context) (*image.Files, error) {
	f := image.NewFiles()
	for _, dir := range []string{"bin", "sbin", "lib", "lib64"} {
		f.Dir("/usr/"+dir, 0o755)
		f.Link("/"+dir, "usr/"+dir)
	}
	tools := []string{"/bin/sh"}
	for _, t := range []string{"cat", "env", "ls", "mkdir", "sleep", "test", "id"} {
		tools = append(tools, "/usr/bin/"+t)
	}
	return f, program(ctx, f, "coreutils and dash", tools...)
}

// program adds programs or libraries of the host with every library they load.
func program(ctx context.Context, f *image.Files, pkg string, paths ...string) error {
	for _, p := range paths {
		if err := f.Copy(merged(p), p); errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%w; install the Debian package %s", err, pkg)
		} else if err != nil {
			return err
		}
	}
	out, err := exec.CommandContext(ctx, "ldd", paths...).Output()
	// ldd fails for static programs, which have nothing to add.
	if err != nil && !bytes.Contains(out, []byte("=>")) {
		return fmt.Errorf("ldd %s: %w", strings.Join(paths, " "), err)
	}
	for s := bufio.NewScanner(bytes.NewReader(out)); s.Scan(); {
		// "NAME => PATH (ADDRESS)", and the loader as "PATH (ADDRESS)".
		line := strings.TrimSpace(s.Text())
		if _, after, ok := strings.Cut(line, "=> "); ok {
			line = after
		}
		path, _, ok := strings.Cut(line, " (")
		if !ok || !strings.HasPrefix(path, "/") {
			if strings.Contains(line, "not found") {
				return fmt.Errorf("a library of %s is missing: %s", strings.Join(paths, " "), s.Text())
			}
			continue
		}
		if err := f.Copy(merged(path), path); err != nil {
			return err
		}
	}
	return nil
}

// merged is the path in a system whose /bin and /lib are links into /usr.
func merged(path string) string {
	for _, dir := range []string{"/bin/", "/sbin/", "/lib/", "/lib64/"} {
		if strings.HasPrefix(path, dir) {
			return "/usr" + path
		}
	}
	return path
}

func curl(ctx context.Context) (image.Spec, error) {
	f, err := system(ctx)
	if err != nil {
		return image.Spec{}, err
	}
	accounts(f, "curl", 1000)
	if err := program(ctx, f, "curl", "/usr/bin/curl"); err != nil {
		return image.Spec{}, err
	}
	return image.Spec{Name: Curl, Command: []string{"sleep", "infinity"}, User: "1000", Files: f}, nil
}

// Accounts of the servers in their images.
const (
	PostgresUID = 70
	RedisUID    = 71
)

// postgresStart makes a database that trusts everybody at the first start: who may
// connect is for the mesh to decide.
const postgresStart = `#!/bin/sh
set -e
data=${PGDATA:-/var/lib/postgresql/data}
if ! test -s "$data/PG_VERSION"; then
  initdb --pgdata="$data" --username=postgres --auth=trust --encoding=UTF8 --locale=C.UTF-8 --no-sync
  echo "host all all all trust" >>"$data/pg_hba.conf"
fi
exec postgres -D "$data" -c listen_addresses='*' -c unix_socket_directories=/tmp "$@"
`

func postgres(ctx context.Context) (image.Spec, error) {
	homes, err := filepath.Glob("/usr/lib/postgresql/*")
	if err != nil || len(homes) == 0 {
		return image.Spec{}, errors.Join(err, errors.New("/usr/lib/postgresql is missing; install the Debian package postgresql"))
	}
	home := slices.Max(homes)
	f, err := system(ctx)
	if err != nil {
		return image.Spec{}, err
	}
	accounts(f, "postgres", PostgresUID)
	var programs []string
	for _, p := range []string{"postgres", "initdb", "pg_ctl", "pg_isready", "psql", "pgbench"} {
		programs = append(programs, filepath.Join(home, "bin", p))
	}
	// The extensions that a fresh database loads; the rest, above all the compiler
	// of queries with its 100 MB of libraries, stays out.
	for _, l := range []string{"plpgsql.so", "dict_snowball.so"} {
		programs = append(programs, filepath.Join(home, "lib", l))
	}
	if err := program(ctx, f, "postgresql", programs...); err != nil {
		return image.Spec{}, err
	}
	for _, dir := range []string{filepath.Join("/usr/share/postgresql", filepath.Base(home)), "/usr/share/zoneinfo", "/usr/lib/locale/C.utf8"} {
		if err := f.CopyTree(dir, "extension", "man", "right", "posix"); err != nil {
			return image.Spec{}, err
		}
	}
	// plpgsql is installed into every database.
	extension := filepath.Join("/usr/share/postgresql", filepath.Base(home), "extension")
	for _, name := range []string{"plpgsql.control", "plpgsql--1.0.sql"} {
		if err := f.Copy(filepath.Join(extension, name), filepath.Join(extension, name)); err != nil {
			return image.Spec{}, err
		}
	}
	f.OwnedDir("/var/lib/postgresql", 0o755, PostgresUID)
	f.OwnedDir("/var/lib/postgresql/data", 0o700, PostgresUID)
	f.Content("/usr/local/bin/start-postgres", 0o755, postgresStart)
	return image.Spec{
		Name: Postgres, Entrypoint: []string{"/usr/local/bin/start-postgres"}, User: fmt.Sprint(PostgresUID), Files: f,
		Env: []string{"PATH=" + filepath.Join(home, "bin") + ":/usr/local/bin:/usr/bin:/bin", "LC_ALL=C.UTF-8", "TZ=UTC"},
	}, nil
}

func redis(ctx context.Context) (image.Spec, error) {
	f, err := system(ctx)
	if err != nil {
		return image.Spec{}, err
	}
	accounts(f, "redis", RedisUID)
	if err := errors.Join(
		// redis-server is a link to a program of redis-tools in some releases.
		program(ctx, f, "redis-server", "/usr/bin/redis-server"),
		program(ctx, f, "redis-tools", "/usr/bin/redis-cli", "/usr/bin/redis-benchmark"),
	); err != nil {
		return image.Spec{}, err
	}
	return image.Spec{
		Name: Redis, Command: []string{"redis-server", "--save", "", "--protected-mode", "no"}, User: fmt.Sprint(RedisUID), Files: f,
	}, nil
}
