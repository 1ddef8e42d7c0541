package migrate

import (
	"fmt"
	"strings"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

type metalLBCommunities struct {
	Communities []struct {
		Name  string `json:"name"`
		Value string `json:"value"`
	} `json:"communities"`
}

// community reads the names that a Community gives to values.
func (m *metallb) community(i *item) {
	var c metalLBCommunities
	if !decode(i, &c) {
		return
	}
	for _, a := range c.Communities {
		if _, there := m.aliases[a.Name]; there {
			i.cannot("spec.communities: %s has a value already, and the first one holds: give each name once", a.Name)
			continue
		}
		m.aliases[a.Name] = a.Value
	}
	i.translated("values in spec.communities of BGPAdvertisements, for Herald has no names for them")
}

// communities returns the values of communities. Some texts are names from a Community.
func (m *metallb) communities(i *item, texts []string) (all []herald.Community) {
	for n, text := range texts {
		field := fmt.Sprintf("spec.communities[%d]", n)
		if value, alias := m.aliases[text]; alias {
			text = value
		} else if !strings.Contains(text, ":") {
			i.cannot("%s: there is no Community with the name %s among the objects: import it, too", field, text)
			continue
		}
		all = i.addCommunity(all, field, strings.TrimPrefix(text, "large:"))
	}
	return all
}
