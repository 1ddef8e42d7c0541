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
	// dying bounds the time that the kernel takes to release a group after its processes were killed.
	dying = 10 * time.Second
)

// cgroup is the parent control group of all containers. Control groups do not end with the enclave, because
// they are in none of its namespaces. They must be removed explicitly.
type cgroup struct{ name string }

// newCgroup derives the name from Docker's folder, so that two source trees do not share a group.
func newCgroup(dir string) cgroup {
	return cgroup{name: fmt.Sprintf("/herald-e2e-%08x", crc32.ChecksumIEEE([]byte(dir)))}
}

// folders returns the folders of the group and of all groups below it, in every hierarchy, innermost first.
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

// remove removes the group once no process runs in it.
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
