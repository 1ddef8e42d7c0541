// Package v1alpha1 holds Herald's custom resources: what users say (IPPool, L2Advertisement,
// BGPPeer, BGPAdvertisement) and what Herald says of itself (IPAllocation, SpeakerStatus).
//
// All kinds are cluster-scoped. Everything that a schema can refuse is refused by the API server,
// with CEL rules where types are not enough, so that a mistake shows itself at `kubectl apply`.
//
// +kubebuilder:object:generate=true
// +groupName=herald.dev
package v1alpha1
