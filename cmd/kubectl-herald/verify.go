package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/speaker/ask"
)

const (
	// viewer is the ServiceAccount of manifests/base/viewer-rbac.yaml.
	viewer = "herald-viewer"
	// tokenLifetime is the shortest that the API server gives.
	tokenLifetime = 10 * time.Minute
	// atOnce is how many speakers ask at the same time: every machine on the segment gets every question.
	atOnce = 8
	// secondLook is how long after the first questions what was wrong is asked again. By then SpeakerStatuses, which
	// are written once a second, tell of addresses that have moved meanwhile.
	secondLook = 2 * time.Second
	// maxResponse is that of maxQuestions addresses on many interfaces.
	maxResponse = 16 << 20
)

func verifyCommand(a *access) *cobra.Command {
	var output format
	var own string
	var from []string
	var port uint16
	cmd := &cobra.Command{
		Use:   "verify [ADDRESS]...",
		Short: "Have the speakers ask their segments who answers for addresses.",
		Long: `Have the speakers ask their segments, by ARP and NDP, who answers for addresses: for those that are given, or all that
L2Advertisements announce. Each is to be answered for by its owner alone. What is wrong is asked again two seconds later
and is reported if it is still wrong: two nodes that answer for one address, one that answers and is not the owner, a
machine that is no speaker, and silence.

The nodes have to be reached from here, at their InternalIP. Each speaker is verified by the key in its SpeakerStatus. The
token that is shown to them is one of the ServiceAccount herald-viewer, and good for nothing else: it takes the right to
create serviceaccounts/token for that one.

The exit code is 0 if nothing is wrong, 2 if something is or a speaker could not be asked, and 1 if the cluster cannot be
read.`,
		Example: `  kubectl herald verify
  kubectl herald verify 198.51.100.7 --from node-3`,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			v := &verifier{cluster: c, own: own, port: port}
			report, err := v.verify(cmd.Context(), args, from)
			if err != nil {
				return err
			}
			if err := output.write(cmd.OutOrStdout(), report, func() string { return report.text(styleOf(cmd.OutOrStdout())) }); err != nil {
				return err
			}
			if len(report.Findings)+len(report.Unasked) > 0 {
				return errAttention
			}
			return nil
		},
	}
	cmd.Flags().StringSliceVar(&from, "from", nil, "Nodes whose speakers are to ask (default all).")
	cmd.Flags().Uint16Var(&port, "port", ask.Port, "The port of the speakers.")
	bindOwn(cmd, &own)
	output.bind(cmd)
	return cmd
}

// verifier has speakers ask.
type verifier struct {
	*cluster
	own  string // Herald's own namespace.
	port uint16

	token   string
	expires time.Time
}

// verify asks for addresses, all if none is given, and a second time for those of which something is wrong.
func (v *verifier) verify(ctx context.Context, addresses, from []string) (*verifyReport, error) {
	n, err := v.network(ctx, v.own)
	if err != nil {
		return nil, err
	}
	wanted, err := n.wanted(addresses)
	if err != nil {
		return nil, err
	}
	speakers, unasked, err := n.askable(from)
	if err != nil {
		return nil, err
	}
	answers, failed, err := v.ask(ctx, speakers, wanted)
	if err != nil {
		return nil, err
	}
	report := n.verify(wanted, answers, time.Now())
	report.Unasked = append(append(report.Unasked, unasked...), failed...)
	slices.SortStableFunc(report.Unasked, func(x, y unaskedReport) int { return strings.Compare(x.Node, y.Node) })
	report.Speakers, report.Addresses = len(speakers)-len(failed), len(wanted)
	if len(report.Findings) == 0 {
		return report, nil
	}
	speakers = slices.DeleteFunc(speakers, func(x askee) bool {
		return slices.ContainsFunc(failed, func(u unaskedReport) bool { return u.Node == x.node })
	})
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(secondLook):
	}
	if n, err = v.network(ctx, v.own); err != nil {
		return nil, err
	}
	wanted = slices.DeleteFunc(n.stillWanted(addresses, wanted), func(a announcement) bool {
		return !slices.ContainsFunc(report.Findings, func(f finding) bool { return f.Address == a.address })
	})
	if answers, _, err = v.ask(ctx, speakers, wanted); err != nil {
		return nil, err
	}
	report.Findings = n.verify(wanted, answers, time.Now()).Findings
	return report, nil
}

// wanted are the addresses to ask for: those that are given, else all that are announced.
func (n *network) wanted(addresses []string) ([]announcement, error) {
	all := n.announcements()
	if len(addresses) == 0 {
		return all, nil
	}
	var wanted []announcement
	for _, text := range addresses {
		address, err := netip.ParseAddr(text)
		if err != nil {
			return nil, fmt.Errorf("%q is no IP address: name addresses, as 198.51.100.7 or 2001:db8::7", text)
		}
		a := announcement{address: address.Unmap().WithZone("").String()}
		if i := slices.IndexFunc(all, func(o announcement) bool { return o.address == a.address }); i >= 0 {
			a = all[i]
		}
		wanted = append(wanted, a)
	}
	return wanted, nil
}

// stillWanted are the addresses of before as they are announced now. Of those that were not given, the ones that are not
// announced any more are left out.
func (n *network) stillWanted(given []string, before []announcement) []announcement {
	if len(given) == 0 {
		return n.announcements()
	}
	var addresses []string
	for _, a := range before {
		addresses = append(addresses, a.address)
	}
	wanted, _ := n.wanted(addresses) // They have been read before.
	return wanted
}

// askee is a speaker that can be asked.
type askee struct {
	node      string
	addresses []string // Of the node.
	key       ed25519.PublicKey
}

// askable are the speakers on the given nodes, else on all, and why others cannot be asked.
func (n *network) askable(from []string) (speakers []askee, unasked []unaskedReport, err error) {
	for _, name := range from {
		if !slices.ContainsFunc(n.nodes, func(o *corev1.Node) bool { return o.Name == name }) {
			return nil, nil, fmt.Errorf("--from: there is no node %q", name)
		}
	}
	for _, node := range n.nodes {
		if len(from) > 0 && !slices.Contains(from, node.Name) {
			continue
		}
		s := askee{node: node.Name}
		for _, a := range node.Status.Addresses {
			if a.Type == corev1.NodeInternalIP {
				s.addresses = append(s.addresses, a.Address)
			}
		}
		i := slices.IndexFunc(n.speakers, func(o *herald.SpeakerStatus) bool { return o.Name == node.Name })
		switch {
		case i < 0:
			unasked = append(unasked, unaskedReport{node.Name, "it has no SpeakerStatus: see whether herald-speaker runs there"})
		case len(s.addresses) == 0:
			unasked = append(unasked, unaskedReport{node.Name, "status.addresses of the node has no InternalIP"})
		default:
			if s.key, err = keyOf(n.speakers[i]); err != nil {
				unasked = append(unasked, unaskedReport{node.Name, err.Error()})
				continue
			}
			speakers = append(speakers, s)
		}
	}
	return speakers, unasked, nil
}

// keyOf is the public key of a speaker's port.
func keyOf(o *herald.SpeakerStatus) (ed25519.PublicKey, error) {
	if o.Status.Identity == nil {
		return nil, errors.New("its SpeakerStatus has no identity: see whether herald-speaker is up to date there")
	}
	key, err := hex.DecodeString(o.Status.Identity.PublicKey)
	if err != nil || len(key) != ed25519.PublicKeySize {
		return nil, errors.New("identity.publicKey in its SpeakerStatus is no key: restart herald-speaker there")
	}
	return key, nil
}

// ask has the speakers ask for addresses, and returns what each has heard, by node, and which could not be asked.
func (v *verifier) ask(ctx context.Context, speakers []askee, wanted []announcement) (map[string][]ask.Answer, []unaskedReport, error) {
	var questions []ask.Question
	for _, a := range wanted {
		if address, err := netip.ParseAddr(a.address); err == nil {
			questions = append(questions, ask.Question{Address: address, Interfaces: a.interfaces})
		}
	}
	answers := make([][]ask.Answer, len(speakers))
	errs := make([]error, len(speakers))
	for batch := range slices.Chunk(questions, ask.MaxQuestions) {
		if err := v.renewToken(ctx); err != nil {
			return nil, nil, err
		}
		var g errgroup.Group
		g.SetLimit(atOnce)
		for i, s := range speakers {
			if errs[i] != nil {
				continue
			}
			g.Go(func() error {
				heard, err := s.ask(ctx, v.port, v.token, batch)
				answers[i], errs[i] = append(answers[i], heard...), err
				return nil
			})
		}
		_ = g.Wait() // Errors are with the speakers.
	}
	if ctx.Err() != nil {
		return nil, nil, ctx.Err()
	}
	by := map[string][]ask.Answer{}
	var unasked []unaskedReport
	for i, s := range speakers {
		by[s.node] = answers[i]
		if errs[i] != nil {
			reason := strings.ReplaceAll(errs[i].Error(), "\n", "; ") // Of several errors each is a line.
			unasked = append(unasked, unaskedReport{s.node, clean(reason)})
		}
	}
	return by, unasked, nil
}

// renewToken has the API server make a token for the speakers alone, if there is none that lasts.
func (v *verifier) renewToken(ctx context.Context) error {
	if time.Until(v.expires) > tokenLifetime/2 {
		return nil
	}
	seconds := int64(tokenLifetime / time.Second)
	request, err := v.kube.CoreV1().ServiceAccounts(v.own).CreateToken(ctx, viewer, &authenticationv1.TokenRequest{
		Spec: authenticationv1.TokenRequestSpec{Audiences: []string{ask.Audience}, ExpirationSeconds: &seconds},
	}, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("a token of ServiceAccount %s/%s, which the speakers want to see: %w", v.own, viewer, err)
	}
	v.token, v.expires = request.Status.Token, time.Now().Add(tokenLifetime)
	return nil
}

// ask has one speaker ask.
func (s *askee) ask(ctx context.Context, port uint16, token string, questions []ask.Question) ([]ask.Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, 40*time.Second)
	defer cancel()
	body, err := json.Marshal(ask.Request{Addresses: questions})
	if err != nil {
		return nil, err
	}
	transport := s.transport(port)
	defer transport.CloseIdleConnections()
	// The host is not looked up: the transport knows the node's addresses.
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://herald-speaker/verify", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Authorization", "Bearer "+token)
	request.Header.Set("Content-Type", "application/json")
	response, err := transport.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	content, err := io.ReadAll(io.LimitReader(response.Body, maxResponse))
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %.200s", response.Status, strings.TrimSpace(string(content)))
	}
	var heard ask.Response
	if err := json.Unmarshal(content, &heard); err != nil {
		return nil, fmt.Errorf("its response cannot be read: %w", err)
	}
	if heard.Error != "" {
		return heard.Answers, errors.New(heard.Error)
	}
	return heard.Answers, nil
}

// transport connects to the first of the node's addresses that can be reached, and trusts the speaker's key alone.
func (s *askee) transport(port uint16) *http.Transport {
	dialer := &net.Dialer{Timeout: 5 * time.Second}
	return &http.Transport{
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			var errs []error
			for _, a := range s.addresses {
				c, err := dialer.DialContext(ctx, network, net.JoinHostPort(a, strconv.Itoa(int(port))))
				if err == nil {
					return c, nil
				}
				errs = append(errs, err)
			}
			return nil, errors.Join(errs...)
		},
		TLSClientConfig: &tls.Config{
			MinVersion:         tls.VersionTLS13,
			InsecureSkipVerify: true, //nolint:gosec // VerifyConnection compares the key. There is no CA.
			VerifyConnection: func(state tls.ConnectionState) error {
				if key, ok := state.PeerCertificates[0].PublicKey.(ed25519.PublicKey); !ok || !key.Equal(s.key) {
					return errors.New("it has another key than the one in its SpeakerStatus: if herald-speaker has just started there, try again; else something else listens on its port")
				}
				return nil
			},
		},
	}
}

// byMAC says which interfaces have a hardware address, as the speakers report.
func (s *segments) byMAC() map[string][]place {
	by := map[string][]place{}
	for _, at := range slices.SortedFunc(maps.Keys(s.interfaces), comparePlaces) {
		if mac, err := net.ParseMAC(s.interfaces[at].MAC); err == nil {
			by[mac.String()] = append(by[mac.String()], at)
		}
	}
	return by
}

func comparePlaces(x, y place) int {
	return cmp.Or(strings.Compare(x.Node, y.Node), strings.Compare(x.Interface, y.Interface))
}
