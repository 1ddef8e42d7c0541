// Package interop has the tests of package bfd that need real routers: every story is told to FRR and to BIRD. They run as
// root, inside an enclave.
package interop
