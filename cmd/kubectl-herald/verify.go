package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/heraldlb/herald/cmd/kubectl-herald/internal/report"
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
	var out output
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
			r, err := v.verify(cmd.Context(), args, from)
			if err != nil {
				return err
			}
			if err := out.write(cmd.OutOrStdout(), r, r.Text); err != nil {
				return err
			}
			if len(r.Findings)+len(r.Unasked) > 0 {
				return errAttention
			}
			return nil
		},
	}
	cmd.Flags().StringSliceVar(&from, "from", nil, "Nodes whose speakers are to ask (default all).")
	cmd.Flags().Uint16Var(&port, "port", ask.Port, "The port of the speakers.")
	bindOwn(cmd, &own)
	out.bind(cmd)
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
func (v *verifier) verify(ctx context.Context, addresses, from []string) (*report.VerifyReport, error) {
	n, err := v.view(ctx)
	if err != nil {
		return nil, err
	}
	wanted, err := n.Wanted(addresses)
	if err != nil {
		return nil, err
	}
	speakers, unasked, err := n.Askable(from)
	if err != nil {
		return nil, err
	}
	answers, failed, err := v.ask(ctx, speakers, wanted)
	if err != nil {
		return nil, err
	}
	r := n.Verify(wanted, answers, time.Now())
	r.Unasked = append(append(r.Unasked, unasked...), failed...)
	slices.SortStableFunc(r.Unasked, func(x, y report.Unasked) int { return strings.Compare(x.Node, y.Node) })
	r.Speakers, r.Addresses = len(speakers)-len(failed), len(wanted)
	if len(r.Findings) == 0 {
		return r, nil
	}
	speakers = slices.DeleteFunc(speakers, func(x report.Askee) bool {
		return slices.ContainsFunc(failed, func(u report.Unasked) bool { return u.Node == x.Node })
	})
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(secondLook):
	}
	if n, err = v.view(ctx); err != nil {
		return nil, err
	}
	wanted = n.Again(addresses, r)
	if answers, _, err = v.ask(ctx, speakers, wanted); err != nil {
		return nil, err
	}
	r.Findings = n.Verify(wanted, answers, time.Now()).Findings
	return r, nil
}

func (v *verifier) view(ctx context.Context) (*report.Network, error) {
	o, err := v.network(ctx, v.own)
	if err != nil {
		return nil, err
	}
	return report.NewNetwork(o), nil
}

// ask has the speakers ask for addresses, and returns what each has heard, by node, and which could not be asked.
func (v *verifier) ask(ctx context.Context, speakers []report.Askee, wanted []report.Announcement) (map[string][]ask.Answer, []report.Unasked, error) {
	var questions []ask.Question
	for _, a := range wanted {
		if q, ok := a.Question(); ok {
			questions = append(questions, q)
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
				heard, err := askSpeaker(ctx, s, v.port, v.token, batch)
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
	var unasked []report.Unasked
	for i, s := range speakers {
		by[s.Node] = answers[i]
		if errs[i] != nil {
			reason := strings.ReplaceAll(errs[i].Error(), "\n", "; ") // Of several errors each is a line.
			unasked = append(unasked, report.Unasked{Node: s.Node, Reason: report.Clean(reason)})
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

// askSpeaker has one speaker ask.
func askSpeaker(ctx context.Context, s report.Askee, port uint16, token string, questions []ask.Question) ([]ask.Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, 40*time.Second)
	defer cancel()
	body, err := json.Marshal(ask.Request{Addresses: questions})
	if err != nil {
		return nil, err
	}
	transport := transportTo(s, port)
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

// transportTo connects to the first of the node's addresses that can be reached, and trusts the speaker's key alone.
func transportTo(s report.Askee, port uint16) *http.Transport {
	dialer := &net.Dialer{Timeout: 5 * time.Second}
	return &http.Transport{
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			var errs []error
			for _, a := range s.Addresses {
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
				if key, ok := state.PeerCertificates[0].PublicKey.(ed25519.PublicKey); !ok || !key.Equal(s.Key) {
					return errors.New("it has another key than the one in its SpeakerStatus: if herald-speaker has just started there, try again; else something else listens on its port")
				}
				return nil
			},
		},
	}
}
