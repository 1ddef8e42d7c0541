package provider

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/ipam"
)

// report notes what is known of the claims and, at the same moment, whether they can be read: claims that are not known because they
// cannot be read are not lost. It returns what was known before.
func (c *claims) report(is *Grants, err error) (was *Grants) {
	c.mu.Lock()
	changed := !c.read || fmt.Sprint(err) != fmt.Sprint(c.problem)
	c.problem, c.read = err, true
	was = c.know(is)
	c.mu.Unlock()
	if !changed {
		return was
	}
	if err != nil {
		c.log.Warn("cannot read IPAddressClaims, trying again", zap.Error(err))
	}
	c.changes.usage.set()
	return was
}

// refuse notes what is wrong with claims.
func (c *claims) refuse(refusals map[string][]string) {
	for _, texts := range refusals {
		slices.Sort(texts)
	}
	c.mu.Lock()
	changed := !maps.EqualFunc(c.refusals, refusals, slices.Equal)
	c.refusals = refusals
	c.mu.Unlock()
	if changed {
		c.changes.usage.set()
	}
}

// fail notes which claims could not be created, and reports whether these are others than before.
func (c *claims) fail(claims []Claim, errs []error) (changed bool) {
	failed := map[string]string{}
	for i, o := range claims {
		if errs[i] != nil {
			failed[o.Name] = fmt.Sprintf("IPAddressClaim %s/%s cannot be created, for IPPool %s: %s", c.namespace, o.Name, o.Pool, cutAt(errs[i].Error(), maxFailure))
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	changed = !maps.Equal(c.failed, failed)
	c.failed = failed
	return changed
}

// failure returns why a claim could not be created; empty if that was not tried, or if it could.
func (c *claims) failure(o Claim) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.failed[o.Name]
}

// tell returns the error of a Service that is not served, with the claims that it waits for, if it waits for any.
func (c *claims) tell(svc *corev1.Service, req ipam.Request, err error) error {
	waits, text := errors.Is(err, ipam.ErrNotGranted), ""
	if waits {
		text = c.words(req)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !waits {
		delete(c.told, svc.UID)
		return err
	}
	c.told[svc.UID] = text
	if text == "" { // It is not known yet which claims these are.
		return err
	}
	return &waitingError{err, text}
}

// retell has the Services synced that wait for something else than they were told.
func (c *claims) retell() {
	c.mu.Lock()
	told := maps.Clone(c.told)
	c.mu.Unlock()
	if len(told) == 0 {
		return
	}
	for _, svc := range c.waiting.list() { // A Service waits before it is told.
		text, was := told[svc.UID]
		delete(told, svc.UID)
		if !was {
			continue
		}
		req, err := c.requests.of(svc, c.requests.namespace(svc.Namespace))
		if err != nil {
			continue
		}
		now := c.words(req)
		if now == "" {
			// If all is granted, the type waiting has the Service synced. If claims of other Services use up the quota, it does not,
			// and then the text without those claims counts.
			req.Claimed = nil
			if c.words(req) == "" {
				continue
			}
		}
		if now != text {
			c.changes.serve(svc)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for uid := range told { // They no longer wait.
		delete(c.told, uid)
	}
}

// words says what a Service waits for; it is empty if the Service waits for no claim.
func (c *claims) words(req ipam.Request) string {
	grants := c.grants.Load()
	wants, idle := c.wants(req, grants)
	if len(wants) == 0 {
		return ""
	}
	c.mu.Lock()
	problem := c.problem
	c.mu.Unlock()
	if problem != nil {
		return fmt.Sprintf("IPPool %s cannot ask for an address: %s", wants[0].Pool, cutAt(problem.Error(), maxFailure))
	}
	_, create := grants.open(req.Owner, wants, idle)
	for _, o := range create {
		if text := c.failure(o); text != "" {
			return text
		}
	}
	return grants.WaitWords(req.Owner, wants, idle, func(o Claim) *ipam.Error { return c.ledger.refused(req, o) })
}

// condition returns the condition Granted of a pool; nil if it is not known. The records are read before the grants, because a claim
// is known before a record names it.
func (c *claims) condition(o *herald.IPPool) *metav1.Condition {
	records := c.records.ofPool(o.Name)
	c.mu.Lock()
	problem, read, refusals, grants := c.problem, c.read, c.refusals[o.Name], c.grants.Load()
	c.mu.Unlock()
	if o.Spec.ExternalPoolRef == nil || !read {
		return nil
	}
	is := &metav1.Condition{Type: herald.PoolGranted, Status: metav1.ConditionFalse, ObservedGeneration: o.Generation}
	if problem != nil {
		is.Reason, is.Message = herald.ReasonNotReadable, problem.Error()
		if _, missing := errors.AsType[*missingError](problem); missing {
			is.Reason = herald.ReasonDefinitionMissing
		}
		return is
	}
	var lost []string
	for _, rec := range records {
		if text := grants.LostWords(rec); text != "" && !released(rec) {
			lost = append(lost, rec.Spec.Address+": "+text)
		}
	}
	slices.Sort(lost)
	switch {
	case len(lost) > 0:
		is.Reason = herald.ReasonGrantLost
		is.Message = "in use though no longer granted; move the Services by kubectl herald renumber, or have the addresses granted again: " + someOf(lost)
	case len(refusals) > 0:
		is.Reason, is.Message = herald.ReasonGrantRefused, someOf(refusals)
	default:
		is.Status, is.Reason, is.Message = metav1.ConditionTrue, herald.ReasonGranted, "every address in use is granted"
	}
	return is
}
