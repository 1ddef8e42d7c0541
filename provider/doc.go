// Package provider is the cloud behind Herald's cloud-controller-manager: it gives Services of type LoadBalancer
// their addresses.
//
// The stock service controller calls EnsureLoadBalancer for every Service (loadbalancer.go). Four steps follow, and each
// uses only what stands before it in this list (a test holds the order of the files):
//
//   - translate (translate.go, foreign.go, requests.go, owners.go, pool.go): what the Service says becomes an ipam.Request
//     and an entry of a record, an IPPool becomes an ipam.Pool. These are functions. Annotations of other load balancers
//     that are to be read become Herald's before a Service is seen at all.
//   - decide (ledger.go, decide.go): the ledger, which is the allocator in memory, gives the addresses.
//   - record (records.go): each address is recorded as an IPAllocation. The records are the truth: the API server
//     refuses a second record of one address, so whatever a stale cache or a second leader believes, an address has one
//     owner. The ledger is an index over them, rebuilt before the first Service is served.
//   - status: the addresses are returned, and the service controller writes them into the status of the Service.
//
// Around that, in goroutines of their own:
//
//   - the reconciler makes each record, the ledger and the Services agree, and frees released addresses when their reuse
//     delay is over;
//   - pools brings the IPPools into the ledger, and keeps their status and finalizer up to date;
//   - the assessor writes into the status of each configuration object what became of it (package configuration), and
//     tells the ledger which addresses are those of nodes, gateways and routers;
//   - waiting tries the Services that could not be served, the oldest first, when an address may have become free;
//   - conflicts takes in what the speakers report of other machines that use an address and, if that is wanted,
//     deadNodes marks the pods of nodes not ready that are reported dead;
//   - speakers lists the speakers' Leases, for the metric that tells which nodes lack a working speaker.
//
// What one of them sees and another is to act upon goes through changes. Its door to the service controller is the
// projection, which hands a Service to that controller's own queue. So the controller stays the only writer of the status
// of a Service.
package provider

// Name is the provider's name in cloud-provider's registry and flags.
const Name = "herald"
