package migrate

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

type ciliumBlock struct {
	CIDR  string `json:"cidr"`
	Start string `json:"start"`
	Stop  string `json:"stop"`
}

type ciliumPool struct {
	ServiceSelector   *metav1.LabelSelector `json:"serviceSelector"`
	AllowFirstLastIPs string                `json:"allowFirstLastIPs"`
	Blocks            []ciliumBlock         `json:"blocks"`
	CIDRs             []ciliumBlock         `json:"cidrs"` // Before 1.16.
	Disabled          bool                  `json:"disabled"`
}

// text returns the block in the format of rangeOf; empty if the block has no range.
func (b ciliumBlock) text() string {
	switch {
	case b.CIDR != "" && b.Start == "" && b.Stop == "":
		return b.CIDR
	case b.Start != "" && b.Stop == "":
		return b.Start
	case b.Start != "":
		return b.Start + "-" + b.Stop
	}
	return ""
}

func (c *cilium) pool(i *item) {
	var spec ciliumPool
	if !decode(i, &spec) {
		return
	}
	p := newIPPool(i.u.GetName())
	p.Spec.Disabled = spec.Disabled
	var ok bool
	if p.Spec.ServiceSelector, p.Spec.NamespaceSelector, ok = ciliumServices(spec.ServiceSelector); !ok {
		p.Spec.Disabled = true
		i.cannot("spec.serviceSelector: %s in spec.serviceSelector of the IPPool, and remove spec.disabled, which is set until then", byName)
	}
	field, blocks := "spec.blocks", spec.Blocks
	if len(blocks) == 0 {
		field, blocks = "spec.cidrs", spec.CIDRs
	}
	var texts []string
	for n, b := range blocks {
		text := b.text()
		if text == "" {
			i.cannot("%s[%d]: give cidr, or start with or without stop: it is left out", field, n)
			continue
		}
		texts = append(texts, text)
		if r, err := rangeOf(b.CIDR); err == nil && spec.AllowFirstLastIPs == "No" {
			if prefix, whole := r.Prefix(); whole && r.From().BitLen()-prefix.Bits() > 1 {
				excludeEnds(p, r)
			}
		}
	}
	p.Spec.Addresses = i.addresses(field, texts)
	i.becomes(p)
}
