package ipam_test

import (
	"testing"

	"github.com/heraldlb/herald/ipam"
)

func TestQuotas(t *testing.T) {
	const v4 = ipam.IPv4
	public := pool("public", "198.51.100.0/30")
	tell(t, map[string]story{
		"what is counted for another namespace does not make room in this one": {
			pools(public),
			allocate(ask("a", v4).in("red").limited(v4, 1), "198.51.100.0@public"),
			restoreOn(ipam.Sharing{}, "blue/web", "198.51.100.1@public"),
			refuse(ask("web", v4).in("red").limited(v4, 1).leaving("198.51.100.1"), ipam.ErrQuota, "namespace red holds 1 IPv4 addresses"),
		},
	})
}
