package kind

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// watchers is how many inotify instances a cluster needs: 69, and some for what pods bring.
const watchers = 80

// watchable checks that the kernel has as many left. They are counted for a user and not in a namespace, so
// with the usual limit of 128 a second cluster on the machine would have kubelets and kube-proxies that crash
// now and then, with "too many open files".
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
