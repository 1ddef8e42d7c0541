package provider

import (
	"errors"
	"fmt"
	"strings"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/ipam"
)

// The allocator refuses requests with values. This file words the refusals in the terms of Kubernetes. Whoever may read
// a Service may read the messages, so they name no Service of another namespace and none of its sharing terms.

// Words returns an error as one sentence for the owner of a Service: what is wrong, with which object, and what to do.
// An error that is not from the allocator is returned as it is.
func Words(err error) string {
	if _, ok := errors.AsType[*coolingError](err); ok {
		return err.Error()
	}
	if _, ok := errors.AsType[*waitingError](err); ok {
		return err.Error()
	}
	e, ok := errors.AsType[*ipam.Error](err)
	if !ok {
		return err.Error()
	}
	switch {
	case errors.Is(e, ipam.ErrTaken):
		return takenWords(e)
	case errors.Is(e, ipam.ErrNotInPool):
		return outsideWords(e)
	case errors.Is(e, ipam.ErrNoPool):
		return poolWords(e)
	case errors.Is(e, ipam.ErrExhausted):
		return exhaustedWords(e)
	case errors.Is(e, ipam.ErrNotGranted):
		return ungrantedWords(e)
	case errors.Is(e, ipam.ErrQuota):
		return quotaWords(e)
	case errors.Is(e, ipam.ErrSkipped):
		return fmt.Sprintf("%s is not given out (%s): ask for another address", e.Address, cut(e.Word))
	}
	return e.Error()
}

func takenWords(e *ipam.Error) string {
	why := ConflictWords(e.Conflict, e.Asker)
	if e.Cause == ipam.ChangedTerms {
		return fmt.Sprintf("%s is %s: take back what was changed (ports, sharing key, traffic policy or selector), or ask for another address",
			e.Address, why)
	}
	return fmt.Sprintf("%s is %s: ask for another address, or %s", e.Address, why, releaseWords(e))
}

// releaseWords says how to free an address that others hold: which object to change, and with which command.
func releaseWords(e *ipam.Error) string {
	holder := e.Conflict.There
	switch {
	case holder.UID == "":
		return "delete the reservation: kubectl delete ipallocation " + herald.AllocationName(e.Address)
	case holder.Namespace != e.Asker.Namespace:
		return "ask the administrator of the cluster who holds it: kubectl get ipallocation " + herald.AllocationName(e.Address)
	}
	return fmt.Sprintf("move that Service to another address: kubectl herald renumber %s/%s", holder.Namespace, holder.Name)
}

// unservedError is the error of a Service that cannot be served until a user changes something.
type unservedError struct {
	why    error
	reason error // one of the reasons of package ipam
}

func (e *unservedError) Error() string { return Words(e.why) }
func (e *unservedError) Unwrap() error { return e.reason }

// coolingError is the refusal of an address whose reuse delay is not over.
type coolingError struct{ taken *ipam.Error }

func (e *coolingError) Error() string {
	return fmt.Sprintf("%s was released by %s and is not given out until the pool's reuseDelay is over: wait, or ask for another address",
		e.taken.Address, ownerWords(e.taken.Holder, e.taken.Asker))
}

func (e *coolingError) Unwrap() error { return e.taken }

// waitingError is the refusal of a Service that waits for claims. The text says for which.
type waitingError struct {
	why  error
	text string
}

func (e *waitingError) Error() string { return e.text }
func (e *waitingError) Unwrap() error { return e.why }

func ungrantedWords(e *ipam.Error) string {
	if e.Cause == ipam.NotGrantedToAsker {
		return fmt.Sprintf("%s was not granted to this Service: another system grants the addresses of pool %s, and cannot be asked for a certain one: "+
			"do not ask for an address, or ask for one of another pool", e.Address, quote(e.Pool))
	}
	return fmt.Sprintf("pool %s waits until another system grants the %s address (spec.externalPoolRef of the pool)", quote(e.Pool), e.Family)
}

func outsideWords(e *ipam.Error) string {
	switch {
	case e.Cause == ipam.CarriedInNoPool:
		return fmt.Sprintf("status.loadBalancer carries %s, which is in no IPPool: "+
			"add it to spec.addresses of one to keep it, or clear the Service's status to be given another", e.Address)
	case e.Asked == "":
		return fmt.Sprintf("%s is in no pool: ask for an address of a pool, or add this one to a pool", e.Address)
	case e.Cause == ipam.InNoPool:
		return fmt.Sprintf("%s is not in pool %s, nor in any other: ask for an address of the pool, or add this one to it", e.Address, quote(e.Asked))
	}
	return fmt.Sprintf("%s is in pool %s, not in pool %s: name the pool it is in, or ask for an address of %[3]s",
		e.Address, quote(e.Home), quote(e.Asked))
}

func poolWords(e *ipam.Error) string {
	pool, all := quote(e.Pool), list(e.Pools)
	switch e.Cause {
	case ipam.NoPools:
		return "there is no IPPool: create one"
	case ipam.UnknownPool:
		return fmt.Sprintf("there is no pool %s: create it, or name another", pool)
	case ipam.ClosedPool:
		return fmt.Sprintf("pool %s gives no new addresses, because it is disabled, invalid or being deleted: enable or correct it, or name another", pool)
	case ipam.AnotherPool:
		return fmt.Sprintf("pool %s is asked for, not this one", quote(e.Asked))
	}
	if e.Cause == ipam.ClassNotAdmitted {
		return fmt.Sprintf("pool %s, which has the address, does not list class %s in spec.announceClasses: add the class there, or use an address of a pool that lists it",
			pool, quote(e.Class))
	}
	if e.Pool == "" {
		switch e.Cause {
		case ipam.NotAutoAssigned:
			return "no pool auto-assigns addresses: name a pool, or let one auto-assign"
		case ipam.NotServed:
			return fmt.Sprintf("no auto-assigning pool serves this Service: none of %s has namespaces, namespaceSelector and serviceSelector "+
				"that let it in: change them or the labels that they look at, or name another pool", all)
		}
		return fmt.Sprintf("no auto-assigning pool (%s) has %s addresses: add some, or name a pool", all, e.Family)
	}
	switch e.Cause {
	case ipam.NotAutoAssigned:
		return fmt.Sprintf("pool %s does not auto-assign: name it to be served from it", pool)
	case ipam.NotServed:
		return fmt.Sprintf("pool %s does not serve this Service: change the pool's namespaces, namespaceSelector or serviceSelector, "+
			"or what they look at, or ask for another pool", pool)
	}
	return fmt.Sprintf("pool %s has no %s addresses of its own: add some, or name another pool", pool, e.Family)
}

func exhaustedWords(e *ipam.Error) string {
	wanted := fmt.Sprintf("a free %s address", e.Family)
	if e.Wanted > 1 {
		wanted = fmt.Sprintf("%d free %s addresses", e.Wanted, e.Family)
	}
	if e.Pool == "" {
		return fmt.Sprintf("no auto-assigning pool (%s) has %s: add addresses to one, or release some", list(e.Pools), wanted)
	}
	if e.Wanted > 1 {
		return fmt.Sprintf("pool %s does not have %s: add addresses to it, or release some", quote(e.Pool), wanted)
	}
	return fmt.Sprintf("pool %s has no free %s address: add addresses to it, or release some", quote(e.Pool), e.Family)
}

func quotaWords(e *ipam.Error) string {
	what := fmt.Sprintf("namespace %s holds %d %s addresses", e.Asker.Namespace, e.Used-e.Claimed, e.Family)
	if e.Claimed > 0 {
		what += fmt.Sprintf(" and waits for %d more", e.Claimed)
	}
	cure := "release one, or raise the quota"
	if e.Pool != "" {
		what = fmt.Sprintf("%s of pool %s, and its quota there is %d (spec.quota of the pool)", what, quote(e.Pool), e.Limit)
		cure = "release one, raise the quota, or name another pool"
	} else {
		what = fmt.Sprintf("%s, and its quota is %d (%s)", what, e.Limit, e.QuotaFrom)
	}
	if e.Cause == ipam.MoveOverQuota {
		cure = "wait until the addresses of earlier moves are free, or raise the quota"
	}
	return what + ": " + cure
}

// ConflictWords returns why an asker cannot have an address, as words that follow "is".
func ConflictWords(c ipam.Conflict, asker ipam.Owner) string {
	known := c.There.Namespace == asker.Namespace
	who := ownerWords(c.There, asker)
	switch c.Over {
	case ipam.Nothing:
		return ""
	case ipam.NotShared:
		switch {
		case c.There.Name == "" && c.There.UID == "":
			return "reserved"
		case c.There.UID == "":
			return "reserved for " + who
		}
		return "held by " + who
	case ipam.DifferentKey:
		if known {
			return fmt.Sprintf("shared by %s with the sharing key %s", who, quote(c.Theirs))
		}
		return fmt.Sprintf("shared by %s with another sharing key", who)
	case ipam.DifferentNamespace:
		return fmt.Sprintf("shared by %s, and the pool does not let namespaces share (shareAcrossNamespaces)", who)
	case ipam.DifferentTraffic:
		if known {
			return fmt.Sprintf("shared by %s, which has another externalTrafficPolicy or selector (%s; this one: %s)", who, cut(c.Theirs), cut(c.Ours))
		}
		return fmt.Sprintf("shared by %s, which has another externalTrafficPolicy or selector", who)
	case ipam.SamePort:
		return fmt.Sprintf("shared by %s, which has port %s, too", who, c.Port)
	}
	return fmt.Sprintf("shared by %d already, which is the most", ipam.MostTenants)
}

// ownerWords names the Service that holds an address, if the asker may know it.
func ownerWords(o, asker ipam.Owner) string {
	if o.Namespace != asker.Namespace && o.Name != "" {
		return "a Service of another namespace"
	}
	return o.String()
}

// VerdictWords returns what a pool has for a request, or why it does not serve the request.
func VerdictWords(v ipam.Verdict) string {
	if v.Refused != nil {
		return Words(v.Refused)
	}
	return fmt.Sprintf("has %d of %d %s addresses free", v.Free, v.Capacity, v.Family)
}

// NotKeptWords returns why a Service does not get an address that is kept for it.
func NotKeptWords(f ipam.NotKept, asker ipam.Owner) string {
	switch f.Cause {
	case ipam.AnotherAddress:
		return "another is asked for"
	case ipam.ToBeLeft:
		return "annotation " + herald.AnnotationRenumber + " lists it"
	case ipam.InNoPool:
		return "it is in no pool any more"
	case ipam.IsSkipped:
		return fmt.Sprintf("it is not given out (%s)", cut(f.Word))
	case ipam.AnotherPool:
		return fmt.Sprintf("it is in pool %s, and an address of pool %s is asked for", quote(f.Home), quote(f.Asked))
	case ipam.AnotherHolder:
		return "it is " + ConflictWords(f.Conflict, asker)
	}
	return "the Service holds another"
}

// list returns the names of pools, or the first of many.
func list(pools []string) string {
	const most = 5
	if len(pools) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(pools[:most], ", "), len(pools)-most)
	}
	return strings.Join(pools, ", ")
}
