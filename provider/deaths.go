package provider

import (
	"maps"
	"slices"
	"time"
)

// Which nodes are dead is decided here, from what their neighbours report. The decision is a function of the reports
// and of the time. The reports may be wrong, and whoever controls a node can write any report in its name, so:
//
//   - a node is dead if two others witness it. In a cluster of two speakers one witness is enough, for there are no more;
//   - a witness counts if its own Node is Ready, nobody reports it dead, and it does not report more than a third of the
//     nodes: one that is cut off from the others takes all of them for dead;
//   - nothing is done if more than a third of the nodes would be dead at once: then it is the network.

const (
	// deathFresh is how old a report may be to be acted upon. A new leader finds the reports of the deaths that the
	// old one has not seen, perhaps because its own node died: it leads 15 s later. After 40 s Kubernetes acts itself.
	deathFresh = time.Minute
	// deathGather is how long a death has to be witnessed before it is acted upon. A speaker writes its SpeakerStatus
	// once a second at most, so only after that time it is known how many nodes died at once.
	deathGather = time.Second
	// deathPatience is how long a death may be reported without enough witnesses before it counts as refused.
	deathPatience = 5 * time.Second
	// deathRest is the least time between two deaths of one node that are acted upon. It bounds what a neighbour can
	// do that reports a death again and again.
	deathRest = 5 * time.Minute
)

// Why nothing is done about a reported death.
const (
	refusedUnwitnessed = "unwitnessed" // Too few witnesses count.
	refusedStale       = "stale"       // The death was long ago, or the witnesses' clocks are wrong.
	refusedTooMany     = "too_many"    // More than a third of the nodes would be dead.
	refusedNotReady    = "not_ready"   // Kubernetes knows already.
	refusedRecent      = "recent"      // The last death of this node was acted upon a moment ago.
)

var deathRefusals = []string{refusedUnwitnessed, refusedStale, refusedTooMany, refusedNotReady, refusedRecent}

// verdict is about a node whose death is reported.
type verdict struct {
	node string
	// witnesses are the nodes that report the death and count, sorted.
	witnesses []string
	// witnessed tells that these are enough, however long ago it was.
	witnessed bool
	// refused is why nothing is to be done; empty if something is.
	refused string
}

// judge decides about every node whose death is reported. It is given the nodes, with whether each is Ready, and what
// their speakers report.
func judge(now time.Time, nodes map[string]bool, reports []*report) map[string]verdict {
	// Without a Node a report is a leftover, and without a speaker a node was never heard.
	reports = slices.DeleteFunc(slices.Clone(reports), func(r *report) bool { _, known := nodes[r.Name]; return !known })
	speakers := make(map[string]bool, len(reports))
	for _, r := range reports {
		speakers[r.Name] = true
	}
	most := max(1, len(speakers)/3)

	// By the dead node, who reports it and when.
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
				verdicts[node] = verdict{node: node, refused: refusedTooMany} // As long as nobody else reports it.
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
				continue // It is reported dead itself.
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

// incidents remembers what was done about which death, so that each is acted upon once.
type incidents struct {
	open map[string]*incident
	// last is when each node was last acted upon.
	last map[string]time.Time
}

// incident is a node whose death is reported.
type incident struct {
	first time.Time // when it was first reported
	ripe  time.Time // since when nothing speaks against acting upon it; zero if something does
	acted bool
	why   string // why not, as it was last
	told  string // the reason that was last counted
}

func newIncidents() *incidents {
	return &incidents{open: map[string]*incident{}, last: map[string]time.Time{}}
}

// step is what is to be done after a look at the verdicts.
type step struct {
	act []verdict
	// refused has a reason for each refusal to be counted.
	refused []string
	// again is when to look next if no report changes; zero: not.
	again time.Duration
}

// observe takes in the verdicts of the moment.
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
			// That death is over. Whoever still reports it does not keep the next one from being acted upon.
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
