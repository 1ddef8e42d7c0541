// Package e2e has Herald's end-to-end tests, which are called stories. A story runs Herald's real programs in a real
// cluster. It does what a user does, and checks what happens to addresses and packets.
package e2e

import (
	"context"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/heraldlb/herald/e2e/lab"
)

// patience bounds a story. No story takes this long unless something is broken, except the long stories of make soak.
const patience = 5 * time.Minute

func storyContext(t testing.TB) context.Context {
	limit := patience
	if os.Getenv("HERALD_SOAK") != "" {
		limit *= 4
	}
	if _, measures := t.(*testing.B); measures {
		limit = time.Hour
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	return ctx
}

// installed makes the database with which all control planes start. The database is removed with the enclave, which has
// its own /run.
var installed = sync.OnceValues(func() (string, error) {
	const dir = "/run/herald-database"
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return dir, lab.MakeDatabase(ctx, dir)
})

func database(t testing.TB) string {
	t.Helper()
	dir, err := installed()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// startControlPlane starts an API server that has nothing but Herald's resources.
func startControlPlane(t testing.TB, controllers bool) (context.Context, *lab.ControlPlane) {
	t.Helper()
	return startControlPlaneWith(t, lab.ControlPlaneOptions{Controllers: controllers})
}

func startControlPlaneWith(t testing.TB, o lab.ControlPlaneOptions) (context.Context, *lab.ControlPlane) {
	t.Helper()
	ctx := storyContext(t)
	if !o.Bare {
		o.Database = database(t)
	}
	c, err := lab.StartControlPlane(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return ctx, c
}
