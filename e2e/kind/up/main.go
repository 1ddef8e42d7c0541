// Command up keeps a cluster of kind with Herald in it until it is told to end, for people to work with.
// Once it is ready it writes its process id and the way in to the file that is its argument.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/heraldlb/herald/e2e/kind"
	"github.com/heraldlb/herald/e2e/lab"
	"github.com/heraldlb/herald/e2e/lab/enclave"
)

func main() { os.Exit(run()) }

func run() int {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "up: name the file to write to: up FILE")
		return 2
	}
	// Inside the enclave ids are others: this one is the process that can be told to end.
	if os.Getenv("HERALD_UP_PID") == "" {
		if err := os.Setenv("HERALD_UP_PID", fmt.Sprint(os.Getpid())); err != nil {
			fmt.Fprintln(os.Stderr, "up:", err)
			return 1
		}
	}
	if err := enclave.Enter(); err != nil {
		fmt.Fprintln(os.Stderr, "up:", err)
		return 1
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := serve(ctx, os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "up:", err)
		return 1
	}
	return 0
}

func serve(ctx context.Context, file string) error {
	root, err := os.Getwd()
	if err != nil {
		return err
	}
	c, err := kind.Start(ctx, kind.Options{Root: root, NodeImage: os.Getenv("HERALD_NODE_IMAGE"), Progress: func(step string) { fmt.Println(step) }})
	if err != nil {
		return err
	}
	defer func() {
		if err := c.Close(); err != nil {
			fmt.Fprintln(os.Stderr, "up:", err)
		}
		_ = os.Remove(file)
	}()
	fmt.Println("installing Herald")
	if err := c.Install(ctx); err != nil {
		return err
	}
	site, err := lab.Surround(ctx, c.Nodes, []lab.RouterKind{lab.FRR, lab.BIRD}, "", c.Dir())
	if err != nil {
		return err
	}
	defer func() { _ = site.Close() }()
	ready := fmt.Sprintf("%s %s %s\n", os.Getenv("HERALD_UP_PID"), c.Kubeconfig, c.Dir())
	if err := os.WriteFile(file, []byte(ready), 0o644); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}
