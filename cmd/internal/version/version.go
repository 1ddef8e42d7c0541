// Package version tells which version of Herald a program is.
package version

import (
	"cmp"
	"runtime/debug"
)

// release is set by the linker for releases and images:
//
//	go build -ldflags "-X github.com/heraldlb/herald/cmd/internal/version.release=v1.2.3" ./cmd/...
var release string

// String returns the version of the running program: the release that the linker has set or, without one, the module's
// version as the go command has stamped it from the version control system, such as
// v0.0.0-20260102030405-abcdef123456+dirty. It is "devel" if neither is known.
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
