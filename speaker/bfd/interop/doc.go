// Package interop has the tests of package bfd that need real routers. Every test runs with FRR and with BIRD. They run as
// root, inside an enclave.
package interop
