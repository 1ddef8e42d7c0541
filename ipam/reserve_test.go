package ipam_test

import (
	"testing"

	"github.com/heraldlb/herald/ipam"
)

// What records say, whether somebody wrote them by hand or the provider did.
func TestRecords(t *testing.T) {
	const v4 = ipam.IPv4
	public := pool("public", "198.51.100.0/30")
	tell(t, map[string]story{
		"a record whose owner is written into another namespace": {
			pools(public),
			replace("198.51.100.0@public", alone("red/web")),
			uses("public", "red", v4, 1),
			replace("198.51.100.0@public", alone("blue/web")), // the same UID
			uses("public", "red", v4, 0),
			uses("", "red", v4, 0),
			uses("public", "blue", v4, 1),
			replace("198.51.100.0@public", nil, "blue/web"),
			uses("", "blue", v4, 0),
			holders("198.51.100.0"),
		},
		"a UID that looks like a name is no reservation for it": {
			pools(public),
			restoredFor(ipam.Owner{Namespace: "default", Name: "odd", UID: "default/web"}, "198.51.100.0@public"),
			reserve("web", "198.51.100.1@public"),
			heldBy("~web", "198.51.100.1@public"),
			forgone(ask("web", v4).leaving("198.51.100.1"), "198.51.100.1: it is to be left"),
		},
	})
}
