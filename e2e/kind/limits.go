package kind

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// watchers is the number of inotify instances that a cluster needs: 69, and some for pods.
const watchers = 80

// watchable checks that this many instances are available. The kernel counts them per user, not per namespace.
// With the usual limit of 128, kubelets and kube-proxies of a second cluster on the machine would sometimes
// crash with "too many open files".
func watchable() error {
	for n := range watchers {
		fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
		if err != nil {
			return fmt.Errorf("kind: the kernel gives %d inotify instances, a cluster needs %d: %w: end the other cluster on this machine, or raise the sysctl fs.inotify.max_user_instances", n, watchers, err)
		}
		defer func() { _ = unix.Close(fd) }()
	}
	return nil
}
