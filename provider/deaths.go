package provider

import (
	"maps"
	"slices"
	"time"
)

// This file decides which nodes are dead, from the reports of their neighbours. The decision is a function of the reports
// and the time. Reports may be wrong, and whoever controls a node can write any report in its name. Therefore:
//
//   - A node is dead if two other nodes witness the death. In a cluster of two speakers one witness is enough, because
//     there are no more.
//   - A witness counts if its own Node is Ready, nobody reports it dead, and it reports no more than a third of the nodes
//     dead. A node that is cut off from the others would report all of them dead.
//   - If more than a third of the nodes would be dead at once, nothing is done: the cause is then the network.

const (
	// deathFresh is the maximum age of a report that is acted upon. A new leader finds the reports of deaths that the old
	// leader has not seen, perhaps because the old leader ran on the dead node. The new leader leads 15 s later. Kubernetes
	// itself acts about 45 s after the death, so a later report changes nothing.
	deathFresh = time.Minute
	// deathGather is how long a death must be witnessed before it is acted upon. A speaker writes its SpeakerStatus at
	// most once a second, so the number of nodes that died at once is known only after that time.
	deathGather = time.Second
	// deathPatience is how long a death may be reported and not acted upon, for whatever reason, before it counts as
	// refused.
	deathPatience = 5 * time.Second
	// deathRest is the minimum time between two deaths of one node that are acted upon. It limits the effect of a
	// neighbour that reports a death again and again.
	deathRest = 5 * time.Minute
)

// The reasons for not acting upon a reported death.
const (
	refusedUnwitnessed = "unwitnessed" // Too few reports count.
	refusedStale       = "stale"       // The death was long ago, or the witnesses' clocks are wrong.
	refusedTooMany     = "too_many"    // More than a third of the nodes would be dead.
	refusedNotReady    = "not_ready"   // Kubernetes already knows.
	refusedRecent      = "recent"      // A recent death of this node was acted upon.
)

var deathRefusals = []string{refusedUnwitnessed, refusedStale, refusedTooMany, refusedNotReady, refusedRecent}

// verdict is the decision about a node whose death is reported.
type verdict struct {
	node string
	// witnesses are the nodes whose reports of the death count, sorted.
	witnesses []string
	// witnessed is true if there are enough witnesses, whatever the age of their reports.
	witnessed bool
	// refused is the reason for doing nothing; empty if the death is to be acted upon.
	refused string
}

// judge decides about every node whose death is reported. nodes says whether each node is Ready; reports are those of the
// speakers.
func judge(now time.Time, nodes map[string]bool, reports []*report) map[string]verdict {
	// A report without a Node is left over, and a node without a speaker was never heard.
	reports = slices.DeleteFunc(slices.Clone(reports), func(r *report) bool { _, known := nodes[r.Name]; return !known })
	speakers := make(map[string]bool, len(reports))
	for _, r := range reports {
		speakers[r.Name] = true
	}
	most := max(1, len(speakers)/3)

	// The time of each report, by dead node and reporting node.
	deaths := map[string]map[string]time.Time{}
	verdicts := map[string]verdict{}
	for _, r := range reports {
		seen := map[string]time.Time{}
		for _, d := range r.deaths {
			if at, ok := reported(d.At, now); ok && speakers[d.Node] && d.Node != r.Name && at.After(seen[d.Node]) {
				seen[d.Node] = at
			}
		}
		if !nodes[r.Name] {
			continue
		}
		for node, at := range seen {
			if len(seen) > most {
				verdicts[node] = verdict{node: node, refused: refusedTooMany} // This verdict stays if no other node reports the death.
				continue
			}
			if deaths[node] == nil {
				deaths[node] = map[string]time.Time{}
			}
			deaths[node][r.Name] = at
		}
	}

	dead := 0
	for node, by := range deaths {
		v, fresh := verdict{node: node}, 0
		for _, witness := range slices.Sorted(maps.Keys(by)) {
			if deaths[witness] != nil {
				continue // The reporting node is itself reported dead.
			}
			v.witnesses = append(v.witnesses, witness)
			if now.Sub(by[witness]) <= deathFresh {
				fresh++
			}
		}
		enough := func(witnesses int) bool { return witnesses >= 2 || witnesses == 1 && len(speakers) == 2 }
		v.witnessed = enough(len(v.witnesses))
		switch {
		case !v.witnessed:
			v.refused = refusedUnwitnessed
		case !enough(fresh):
			v.refused = refusedStale
		case !nodes[node]:
			v.refused = refusedNotReady
		}
		if v.witnessed {
			dead++
		}
		verdicts[node] = v
	}
	for node, v := range verdicts {
		if dead > most && v.refused == "" {
			v.refused = refusedTooMany
			verdicts[node] = v
		}
	}
	return verdicts
}

// incidents remembers which deaths were acted upon, so that each is acted upon once.
type incidents struct {
	open map[string]*incident
	// last has the time when each node's death was last acted upon.
	last map[string]time.Time
}

// incident is a node whose death is reported.
type incident struct {
	first time.Time // when it was first reported
	ripe  time.Time // since when nothing prevents acting upon it; zero if something does
	acted bool
	why   string // the last reason for not acting upon it
	told  string // the reason that was counted last
}

func newIncidents() *incidents {
	return &incidents{open: map[string]*incident{}, last: map[string]time.Time{}}
}

// step is the result of an observation.
type step struct {
	act []verdict
	// refused has the reasons to count, one for each refusal.
	refused []string
	// again is the delay until the next observation if no report changes; zero means none.
	again time.Duration
}

// observe processes the current verdicts.
func (s *incidents) observe(now time.Time, verdicts map[string]verdict) (next step) {
	again := func(at time.Time) {
		if wait := at.Sub(now); wait > 0 && (next.again == 0 || wait < next.again) {
			next.again = wait
		}
	}
	for node, i := range s.open {
		if _, reported := verdicts[node]; !reported {
			if !i.acted && i.told == "" && i.why != "" {
				next.refused = append(next.refused, i.why)
			}
			delete(s.open, node)
		}
	}
	maps.DeleteFunc(s.last, func(_ string, at time.Time) bool { return now.Sub(at) >= deathRest })
	for _, node := range slices.Sorted(maps.Keys(verdicts)) {
		v, i := verdicts[node], s.open[node]
		if i == nil || i.acted && !v.witnessed {
			// The earlier death is over. Nodes that still report it must not delay acting upon the next one.
			i = &incident{first: now}
			s.open[node] = i
		}
		if i.acted {
			continue
		}
		i.why = v.refused
		if last, recent := s.last[node]; i.why == "" && recent {
			i.why = refusedRecent
			again(last.Add(deathRest))
		}
		if i.why != "" {
			i.ripe = time.Time{}
			if counted := i.first.Add(deathPatience); now.Before(counted) {
				again(counted)
			} else if i.told != i.why {
				i.told = i.why
				next.refused = append(next.refused, i.why)
			}
			continue
		}
		if i.ripe.IsZero() {
			i.ripe = now
		}
		if due := i.ripe.Add(deathGather); now.Before(due) {
			again(due)
			continue
		}
		i.acted = true
		s.last[node] = now
		next.act = append(next.act, v)
	}
	return next
}
