package ratelimit_test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	api "github.com/tulle-mesh/tulle/api/waypoint"
	"github.com/tulle-mesh/tulle/waypoint/ratelimit"
)

func TestPasswordsComeFromTheirDirectoryAlone(t *testing.T) {
	all, outside := t.TempDir(), filepath.Join(t.TempDir(), "token")
	dir, other := filepath.Join(all, "shop"), filepath.Join(all, "pay")
	for _, d := range []string{dir, other} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for file, text := range map[string]string{
		outside: "secret", filepath.Join(other, "password"): "secret", filepath.Join(all, "password"): "secret", filepath.Join(dir, "password"): "known\n", filepath.Join(dir, "long"): strings.Repeat("x", 5<<10),
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(outside, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for file, sent := range map[string]string{
		filepath.Join(dir, "password"):        "AUTH\r\n$5\r\nknown\r\n",
		outside:                               "",
		filepath.Join(other, "password"):      "",
		filepath.Join(all, "password"):        "",
		dir + "/../pay/password":              "",
		filepath.Join(dir, "link"):            "",
		filepath.Join(dir, "long"):            "",
		dir + "/../" + filepath.Base(outside): "",
		"/proc/self/environ":                  "",
		filepath.Join(dir, "missing"):         "",
		dir:                                   "",
	} {
		got := make(chan string, 64)
		l := ratelimit.New(ratelimit.Config{PasswordDir: all, Dial: func(context.Context, string) (net.Conn, error) {
			here, there := net.Pipe()
			go func() {
				defer there.Close()
				var b [4096]byte
				n, _ := there.Read(b[:])
				select {
				case got <- string(b[:n]):
				default:
				}
			}()
			return here, nil
		}})
		l.Compile(&api.RateLimit{Namespace: "shop", Name: "calls", Backend: &api.RateLimitBackend{
			Kind: &api.RateLimitBackend_Redis{Redis: &api.RedisBackend{Address: "redis:6379", PasswordFile: file}},
		}}, nil)
		text := <-got
		l.Close()
		if sent == "" && text != "" || !strings.Contains(text, sent) {
			t.Errorf("%s: %q was sent", file, text)
		}
	}
}
