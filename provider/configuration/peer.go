package configuration

import (
	"cmp"
	"fmt"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

// The states of a session in a SpeakerStatus.
const (
	sessionEstablished = "Established"
	sessionInvalid     = "Invalid"
	bfdUp              = "Up"
)

// told is what one node says about its session with a peer.
type told struct {
	node, text string
}

// peer assesses a BGPPeer. Nodes without a speaker have no session.
func (v *view) peer(o *herald.BGPPeer) herald.BGPPeerStatus {
	var invalid, down, notes, dead []told
	matched, expected := 0, 0
	_, err := herald.CompileSelector("nodeSelector", o.Spec.NodeSelector)
	for i := range v.nodes {
		n := &v.nodes[i]
		if !v.holders[o.Name].Matches(labels.Set(n.Labels)) {
			continue
		}
		matched++
		if !n.reports {
			continue
		}
		expected++
		s, known := n.sessions[o.Name]
		text := printable(s.Reason, maxReport)
		if s.State == sessionInvalid && text == "" {
			text = "its speaker cannot use the BGPPeer: see its log"
		}
		switch {
		case o.Spec.BFD == nil:
		case !n.ready:
			dead = append(dead, told{n.Name, "the node is not Ready"})
		case n.Silent:
			dead = append(dead, told{n.Name, silentSpeaker})
		case s.BFD != bfdUp:
			dead = append(dead, told{n.Name, cmp.Or(printable(s.BFDReason, maxReport), "BFD is not up yet")})
		}
		switch {
		case known && s.State == sessionInvalid:
			invalid = append(invalid, told{n.Name, text})
			down = append(down, told{n.Name, text})
		case !n.ready:
			down = append(down, told{n.Name, "the node is not Ready, so its speaker may not run"})
		case n.Silent:
			down = append(down, told{n.Name, silentSpeaker})
		case !known && len(n.Sessions) >= herald.MaxStatusSessions:
			down = append(down, told{n.Name, fmt.Sprintf("its SpeakerStatus has the first %d sessions by name, and not this one: kubectl herald bgp peers %s asks the speaker", herald.MaxStatusSessions, o.Name)})
		case !known:
			down = append(down, told{n.Name, "its speaker does not report the session yet"})
		case s.State != sessionEstablished && text == "":
			down = append(down, told{n.Name, "the session is being set up"})
		case s.State != sessionEstablished:
			down = append(down, told{n.Name, text})
		case text != "":
			notes = append(notes, told{n.Name, text})
		}
	}
	accepted := condition(herald.ConditionAccepted, true, herald.ReasonValid, "", o.Generation)
	no := func(reason, message string) {
		accepted = condition(herald.ConditionAccepted, false, reason, message, o.Generation)
	}
	switch {
	case err != nil:
		no(herald.ReasonInvalid, printable(err.Error(), maxReport))
	case len(invalid) > 0 && strings.HasPrefix(invalid[0].text, "spec.passwordSecret:"):
		no(herald.ReasonSecretMissing, first(invalid))
	case len(invalid) > 0:
		no(herald.ReasonInvalid, first(invalid))
	case matched == 0 && len(v.nodes) > 0:
		no(herald.ReasonNoNodeSelected, "spec.nodeSelector matches no node, so no node holds a session: correct it, or label the nodes that should hold one")
	}
	conditions := []metav1.Condition{accepted, established(o.Generation, accepted, expected, down, notes)}
	if o.Spec.BFD != nil {
		conditions = append(conditions, pathsAlive(o.Generation, expected, dead))
	}
	return herald.BGPPeerStatus{Sessions: fmt.Sprintf("%d/%d", expected-len(down), expected), Conditions: conditions}
}

const silentSpeaker = "its speaker does not renew its Lease: see whether herald-speaker runs there, and its log"

func pathsAlive(generation int64, expected int, dead []told) metav1.Condition {
	is := func(status bool, reason, message string) metav1.Condition {
		return condition(herald.ConditionPathsAlive, status, reason, message, generation)
	}
	switch {
	case expected == 0:
		return is(false, herald.ReasonNoSpeaker, "no node holds a session: the conditions Accepted and Established tell why")
	case len(dead) > 0:
		return is(false, herald.ReasonBFDDown, first(dead)+"; the BGP session does not wait for BFD")
	}
	return is(true, herald.ReasonAlive, "")
}

func established(generation int64, accepted metav1.Condition, expected int, down, notes []told) metav1.Condition {
	is := func(status bool, reason, message string) metav1.Condition {
		return condition(herald.ConditionEstablished, status, reason, message, generation)
	}
	switch {
	case expected == 0 && accepted.Status == metav1.ConditionFalse:
		return is(false, accepted.Reason, "no node holds a session: the condition Accepted tells why")
	case expected == 0:
		return is(false, herald.ReasonNoSpeaker, "no speaker reports from a node that is to hold the session: see to it that the DaemonSet herald-speaker runs there")
	case len(down) == expected:
		return is(false, herald.ReasonNoSession, first(down))
	case len(down) > 0:
		return is(false, herald.ReasonSessionsDown, first(down))
	}
	return is(true, herald.ReasonEstablished, first(notes))
}

// first returns what the first node says, and how many more nodes there are.
func first(all []told) string {
	if len(all) == 0 {
		return ""
	}
	return fmt.Sprintf("node %s: %s%s", all[0].node, all[0].text, andMore(len(all)-1, "node"))
}
