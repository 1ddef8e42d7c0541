// Package provider is the cloud provider of Herald's cloud controller manager: it assigns addresses to Services of type
// LoadBalancer.
//
// The stock service controller calls EnsureLoadBalancer for every Service (loadbalancer.go). Four steps follow. Each step
// uses only the files of the steps before it (order_test.go lists all files in this order):
//
//   - translate (translate.go, foreign.go, requests.go, owners.go, pool.go): pure functions turn a Service into an
//     ipam.Request and an entry of a record, and an IPPool into an ipam.Pool. Annotations of other load balancers, if they
//     are to be read, are translated into Herald's before any other code sees the Service.
//   - decide (ledger.go, decide.go): the ledger, which is the allocator in memory, chooses the addresses.
//   - record (records.go): each address is recorded as an IPAllocation. The records are the truth: the API server refuses
//     a second record of one address, so an address has one record, which names its holders, whatever a stale cache or a second
//     leader believes. The ledger is an index over the records, rebuilt before the first Service is served.
//   - status: the addresses are returned, and the service controller writes them into the status of the Service.
//
// These parts run beside the four steps, in goroutines of their own:
//
//   - the reconciler makes each record, the ledger and the Services agree, and frees released addresses after their reuse
//     delay;
//   - pools brings the IPPools into the ledger, and keeps their status and finalizer up to date;
//   - untold tells Services, one after the other, that nothing announces their addresses;
//   - the assessor writes the status of each configuration object (package configuration), and tells the ledger which
//     addresses are those of nodes, gateways and routers;
//   - waiting retries the Services that could not be served, the oldest first, when an address may have become free;
//   - retries has Services synced again whose sync failed because the API server was not available;
//   - claims asks other systems for the addresses that they are to grant (spec.externalPoolRef of a pool), by IPAddressClaims,
//     and reads what they granted (claim.go, grants.go): claims.go reads, claimsync.go decides and writes, claimstatus.go tells users;
//   - others records the addresses that controllers of other classes give their Services, if the pools admit these classes;
//   - conflicts reads the speakers' reports of other machines that use an address and, if this is enabled, deadNodes marks
//     pods as not ready when their node is reported dead;
//   - speakers lists the speakers' Leases, for the metric that says which nodes lack a working speaker, and for the assessor.
//
// If one part sees a change that another must act on, it calls changes. The only way to the service controller is the
// projection, which puts a Service into that controller's own queue. The service controller thus stays the only writer of
// the status of a Service. Services of other classes are never written.
package provider

// Name is the name of the provider in the registry and the flags of cloud-provider.
const Name = "herald"
