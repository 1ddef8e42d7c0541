package provider

import (
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"testing"
)

// order lists the files from the bottom up: each file uses only declarations of the files before it. The package
// comment in doc.go describes the order.
var order = []string{
	"doc.go", "changes.go", "quote.go", "quota.go", "translate.go", "foreign.go", "owners.go", "pool.go", // translate
	"usage.go", "holding.go", "poolstatus.go", "words.go", "claim.go", "grants.go", "grantwords.go", "notices.go", "requests.go", "services.go", "annotations.go",
	"ledger.go", "decide.go", // decide
	"records.go",                                                           // record
	"reports.go", "conflicts.go", "reconciler.go", "untold.go", "pools.go", // what happens elsewhere
	"retries.go", "client.go", "projection.go", "waiting.go", "claims.go", "claimsync.go", "claimstatus.go", "metrics.go", "loadbalancer.go", // status
	"others.go",        // addresses that other controllers gave
	"configuration.go", // what became of configuration objects
	"speakers.go", "deaths.go", "deadnodes.go", "provider.go",
}

func TestFilesUseOnlyWhatStandsBeforeThem(t *testing.T) {
	files := map[string]*ast.File{}
	declared := map[string]string{} // the file of each package-level name
	for _, name := range order {
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		files[name] = f
		for _, d := range f.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Recv == nil {
					declared[d.Name.Name] = name
				}
			case *ast.GenDecl:
				for _, s := range d.Specs {
					switch s := s.(type) {
					case *ast.TypeSpec:
						declared[s.Name.Name] = name
					case *ast.ValueSpec:
						for _, n := range s.Names {
							declared[n.Name] = name
						}
					}
				}
			}
		}
	}
	delete(declared, "_")
	for i, name := range order {
		for _, used := range files[name].Unresolved {
			if from := declared[used.Name]; slices.Contains(order[i+1:], from) {
				t.Errorf("%s uses %s of %s, which stands above it", name, used.Name, from)
			}
		}
	}
}
