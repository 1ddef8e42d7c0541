// Command pause runs in a pod's sandbox. It holds the pod's namespaces and does nothing else.
package main

import (
	"os"
	"os/signal"
	"syscall"
)

func main() {
	// If the containers of a pod share a process namespace, pause is process 1 there. Ignoring SIGCHLD makes the
	// kernel reap orphans.
	signal.Ignore(syscall.SIGCHLD)
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGINT, syscall.SIGTERM)
	<-end
}
