// Package version has the version of the running program.
package version

import (
	"cmp"
	"runtime/debug"
)

// release is set by the linker for releases and images:
//
//	go build -ldflags "-X github.com/heraldlb/herald/cmd/internal/version.release=v1.2.3" ./cmd/...
var release string

// String returns the version of the running program: the release that the linker has set or, without one, the version
// of the module that the go command has stamped from version control, for example
// v0.0.0-20260102030405-abcdef123456+dirty. It returns "devel" if neither is known.
func String() string {
	info, _ := debug.ReadBuildInfo()
	return choose(release, info)
}

func choose(release string, info *debug.BuildInfo) string {
	if info == nil || info.Main.Version == "(devel)" {
		return cmp.Or(release, "devel")
	}
	return cmp.Or(release, info.Main.Version, "devel")
}
