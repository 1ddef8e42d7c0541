package migrate

import (
	"regexp"
)

// isInterface reports whether Linux takes a name for an interface, as far as its length tells.
func isInterface(name string) bool { return len(name) > 0 && len(name) <= 15 }

// interfacePattern is a regular expression that matches one name of an interface.
var interfacePattern = regexp.MustCompile(`^\^?([A-Za-z0-9_.-]{1,15})\$?$`)

// onDefaultRoute says how Herald chooses interfaces where the other load balancer takes that of the default route.
func (i *item) onDefaultRoute(field string) {
	i.approximated("%s: %s announces on the interface of the default route, Herald on every one with a subnet that holds the address", field, i.t.source.Title)
}
