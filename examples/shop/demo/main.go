// Command demo shows what the mesh does, with the example shop: the same order
// before and after the shop's namespace joins the mesh, with the evidence from
// the wire and from the logs, a policy, the certificates, and what it costs.
//
// It uses nothing but the commands that it prints. It ends by itself, cleans up
// after itself, and its exit status is 0 only when every step showed what it
// should. KEEP=1 leaves the mesh up to look around in.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

// demoTimeout ends a demo that hangs.
const demoTimeout = 5 * time.Minute

func main() {
	shop := flag.String("shop", "examples/shop", "folder of shop.yaml")
	flag.Parse()
	signal.Ignore(syscall.SIGPIPE) // `demo | head` shall clean up too
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, demoTimeout)
	defer cancel()
	if err := run(ctx, *shop); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, shop string) (err error) {
	if _, err := os.Stat(filepath.Join(shop, "shop.yaml")); err != nil {
		return fmt.Errorf("%w; run it from the repository's root, or say with --shop where the shop is", err)
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	// Short, because sockets live below it.
	state, err := os.MkdirTemp("", "tulle-demo-")
	if err != nil {
		return err
	}
	d := &demo{
		mesh: mesh{bin: filepath.Join(filepath.Dir(self), "meshctl"), state: state, say: newSpeaker(os.Stdout)},
		shop: shop, marker: marker(),
	}
	keep := os.Getenv("KEEP") != "" && os.Getenv("KEEP") != "0"
	defer func() {
		if keep {
			d.kept()
			return
		}
		if downErr := d.down(); err == nil {
			err = downErr
		}
	}()
	for _, step := range []func(context.Context) error{
		d.start, d.plaintext, d.join, d.encrypted, d.identities, d.policy, d.certificates, d.cost,
	} {
		if err := step(ctx); err != nil {
			d.say.bad(err.Error())
			return fmt.Errorf("a step did not show what it should")
		}
	}
	return nil
}
