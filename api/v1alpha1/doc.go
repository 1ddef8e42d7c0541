// Package v1alpha1 has Herald's custom resources. IPPool, L2Advertisement, BGPPeer and BGPAdvertisement are its
// configuration. IPAllocation and SpeakerStatus are reports of Herald's programs.
//
// All kinds are cluster-scoped. The API server refuses as many mistakes as a schema can express, with CEL rules in addition
// to types, so that users see them at kubectl apply.
//
// +kubebuilder:object:generate=true
// +groupName=herald.dev
package v1alpha1
