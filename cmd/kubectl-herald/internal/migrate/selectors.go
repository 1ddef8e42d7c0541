package migrate

import (
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// anyOf translates several selectors, of which one must match, into alternatives for objects of Herald that have one
// selector each. A nil selector selects everything.
func anyOf(list []metav1.LabelSelector) []*metav1.LabelSelector {
	if len(list) == 0 {
		return []*metav1.LabelSelector{nil}
	}
	key, values := "", []string{}
	for _, s := range list {
		k, v, simple := oneOf(s)
		switch {
		case selectsAll(s):
			return []*metav1.LabelSelector{nil}
		case !simple || key != "" && k != key:
			var all []*metav1.LabelSelector
			for n := range list {
				all = append(all, list[n].DeepCopy())
			}
			return all
		}
		key, values = k, append(values, v...)
	}
	if len(list) == 1 {
		return []*metav1.LabelSelector{list[0].DeepCopy()}
	}
	slices.Sort(values)
	return []*metav1.LabelSelector{{MatchExpressions: []metav1.LabelSelectorRequirement{
		{Key: key, Operator: metav1.LabelSelectorOpIn, Values: slices.Compact(values)},
	}}}
}

func selectsAll(s metav1.LabelSelector) bool { return len(s.MatchLabels)+len(s.MatchExpressions) == 0 }

// disjoint reports whether nothing can match both selectors, as far as this can be decided.
func disjoint(a, b *metav1.LabelSelector) bool {
	if a == nil || b == nil {
		return false
	}
	k, v, ok := oneOf(*a)
	l, w, also := oneOf(*b)
	return ok && also && k == l && !slices.ContainsFunc(v, func(value string) bool { return slices.Contains(w, value) })
}

// oneOf splits a selector that requires one label to have one of some values.
func oneOf(s metav1.LabelSelector) (key string, values []string, ok bool) {
	switch {
	case len(s.MatchLabels) == 1 && len(s.MatchExpressions) == 0:
		for k, v := range s.MatchLabels {
			return k, []string{v}, true
		}
	case len(s.MatchLabels) == 0 && len(s.MatchExpressions) == 1 && s.MatchExpressions[0].Operator == metav1.LabelSelectorOpIn:
		return s.MatchExpressions[0].Key, s.MatchExpressions[0].Values, true
	}
	return "", nil, false
}

// keysOf adds the label keys that selectors use to keys.
func keysOf(keys map[string]bool, list ...metav1.LabelSelector) {
	for _, s := range list {
		for k := range s.MatchLabels {
			keys[k] = true
		}
		for _, e := range s.MatchExpressions {
			keys[e.Key] = true
		}
	}
}
