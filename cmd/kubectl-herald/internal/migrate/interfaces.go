package migrate

import (
	"regexp"
)

// isInterface reports whether Linux accepts a name of this length for an interface.
func isInterface(name string) bool { return len(name) > 0 && len(name) <= 15 }

// interfacePattern matches regular expressions that match exactly one interface name.
var interfacePattern = regexp.MustCompile(`^\^?([A-Za-z0-9_.-]{1,15})\$?$`)

// onDefaultRoute notes how Herald chooses interfaces where the other load balancer uses that of the default route.
func (i *item) onDefaultRoute(field string) {
	i.approximated("%s: %s announces on the interface of the default route, Herald on every one with a subnet that holds the address", field, i.t.source.Title)
}
