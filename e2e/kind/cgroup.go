package kind

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/heraldlb/herald/e2e/lab"
)

const (
	cgroups = "/sys/fs/cgroup"
	// dying is how long the kernel may take to let go of a group whose processes were killed.
	dying = 10 * time.Second
)

// cgroup is the control group that all containers are under. Groups are in no namespace that would end
// with the enclave, so they stay until somebody removes them.
type cgroup struct{ name string }

// newCgroup has another name for each folder of Docker's, so that two source trees do not meet.
func newCgroup(dir string) cgroup {
	return cgroup{name: fmt.Sprintf("/herald-e2e-%08x", crc32.ChecksumIEEE([]byte(dir)))}
}

// folders are the group and all below it in every hierarchy, the innermost first.
func (c cgroup) folders() (dirs []string, err error) {
	// Version 2 has one hierarchy, version 1 one for each controller.
	for _, pattern := range []string{cgroups + c.name, cgroups + "/*" + c.name} {
		tops, err := filepath.Glob(pattern)
		if err != nil {
			return nil, err
		}
		for _, top := range tops {
			err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
				if err == nil && d.IsDir() {
					dirs = append(dirs, path)
				}
				return err
			})
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, err
			}
		}
	}
	slices.Reverse(dirs)
	return dirs, nil
}

// remove removes the group once nothing runs in it any more.
func (c cgroup) remove(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, dying)
	defer cancel()
	err := lab.Eventually(ctx, func(context.Context) error {
		dirs, err := c.folders()
		for _, d := range dirs {
			if e := os.Remove(d); e != nil && !errors.Is(e, fs.ErrNotExist) {
				err = e
			}
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("remove control group %s: %w", c.name, err)
	}
	return nil
}
