package client

import (
	"encoding/json"
	"fmt"
	"maps"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

// DecodeError says that an object in the API server does not fit its Go type. The schemas of the CustomResourceDefinitions
// do not admit such an object, but it may have been stored under a different schema.
type DecodeError struct {
	Resource, Name string // such as ippools and public
	Err            error

	version string
}

func (e *DecodeError) Error() string {
	return fmt.Sprintf("%s/%s cannot be read and is left out: %v: correct it with kubectl edit %s.%s %s, or delete it",
		e.Resource, e.Name, e.Err, e.Resource, herald.GroupVersion.Group, e.Name)
}

func (e *DecodeError) Unwrap() error { return e.Err }

// faults remembers the objects that cannot be decoded, so that each version of an object is reported once.
type faults struct {
	mu     sync.Mutex
	report func(*DecodeError)
	known  map[string]map[string]string // resource versions by resource and name
}

// maxFaults bounds the number of objects that are remembered for each resource. If there are more, some are reported again.
const maxFaults = 10_000

func (f *faults) found(e *DecodeError) {
	f.mu.Lock()
	defer f.mu.Unlock()
	known := f.known[e.Resource]
	if version, is := known[e.Name]; is && version == e.version {
		return
	}
	if len(known) >= maxFaults {
		clear(known)
	}
	known[e.Name] = e.version
	if f.report != nil {
		f.report(e)
	}
}

// over forgets an object that can be decoded now or that was deleted.
func (f *faults) over(resource, name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.known[resource], name)
}

// only forgets all objects of a resource except those in listed, which come from a complete list.
func (f *faults) only(resource string, listed map[string]bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	maps.DeleteFunc(f.known[resource], func(name, _ string) bool { return !listed[name] })
}

// Unreadable returns, for each resource, the number of objects that lists, watches and informers currently leave out.
func (s *Set) Unreadable() map[string]int {
	s.faults.mu.Lock()
	defer s.faults.mu.Unlock()
	counts := map[string]int{}
	for resource, known := range s.faults.known {
		counts[resource] = len(known)
	}
	return counts
}

// undecodable takes the place of an object in a watch event.
type undecodable struct {
	metav1.PartialObjectMetadata
	err error
}

func (u *undecodable) DeepCopyObject() runtime.Object {
	return &undecodable{*u.DeepCopy(), u.err}
}

// lenient decodes an object in a watch event that does not fit its type as an undecodable. With client-go's decoder one such
// object would end the watch.
type lenient struct{ runtime.NegotiatedSerializer }

func (l lenient) DecoderToVersion(d runtime.Decoder, gv runtime.GroupVersioner) runtime.Decoder {
	return lenientDecoder{l.NegotiatedSerializer.DecoderToVersion(d, gv)}
}

type lenientDecoder struct{ runtime.Decoder }

func (d lenientDecoder) Decode(data []byte, defaults *schema.GroupVersionKind, into runtime.Object) (runtime.Object, *schema.GroupVersionKind, error) {
	o, kind, err := d.Decoder.Decode(data, defaults, into)
	// client-go decodes the object of a watch event without defaults and without a target.
	if err == nil || defaults != nil || into != nil {
		return o, kind, err
	}
	u := &undecodable{err: err}
	if json.Unmarshal(data, &u.PartialObjectMetadata) != nil || u.Name == "" {
		return o, kind, err
	}
	return u, kind, nil
}

// undecodable reads the metadata of an object that cannot be decoded, and returns the error for it.
func (r Resource[T, L]) undecodable(data []byte, err error) (*metav1.PartialObjectMetadata, *DecodeError) {
	partial := &metav1.PartialObjectMetadata{}
	if bad := json.Unmarshal(data, partial); bad != nil {
		partial = &metav1.PartialObjectMetadata{} // The API server writes the metadata: this does not happen.
	}
	return partial, &DecodeError{Resource: r.plural, Name: partial.Name, Err: err, version: partial.ResourceVersion}
}

// copyMetadata copies the metadata that identifies an object and its version, and the metadata that an update has to repeat.
func copyMetadata(to metav1.Object, from *metav1.PartialObjectMetadata) {
	to.SetName(from.Name)
	to.SetUID(from.UID)
	to.SetResourceVersion(from.ResourceVersion)
	to.SetGeneration(from.Generation)
	to.SetCreationTimestamp(from.CreationTimestamp)
	to.SetDeletionTimestamp(from.DeletionTimestamp)
	to.SetLabels(from.Labels)
	to.SetAnnotations(from.Annotations)
	to.SetFinalizers(from.Finalizers)
	to.SetOwnerReferences(from.OwnerReferences)
}
