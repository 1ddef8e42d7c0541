package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/heraldlb/herald/cmd/kubectl-herald/internal/report"
	"github.com/heraldlb/herald/speaker/inspect"
)

const (
	// viewer is the ServiceAccount of manifests/rbac/viewer.yaml.
	viewer = "herald-viewer"
	// tokenLifetime is the shortest lifetime that the API server grants.
	tokenLifetime = 10 * time.Minute
	// atOnce is how many speakers are asked at the same time. The requests of verify go to every machine on the segment.
	atOnce = 8
)

// speakers sends requests to the ports of speakers.
type speakers struct {
	*cluster
	own  string // Herald's own namespace.
	port uint16

	token   string
	expires time.Time
}

// bind adds the flags that say how to reach the speakers.
func (p *speakers) bind(cmd *cobra.Command) {
	cmd.Flags().Uint16Var(&p.port, "port", inspect.Port, "The port of the speakers.")
	bindOwn(cmd, &p.own)
}

// each calls do for each speaker that has no error yet, for several speakers at the same time, and stores the errors by
// index. It fails if it gets no token, or if ctx ends.
func (p *speakers) each(ctx context.Context, all []report.Askee, errs []error, do func(ctx context.Context, i int) error) error {
	if err := p.renewToken(ctx); err != nil {
		return err
	}
	var g errgroup.Group
	g.SetLimit(atOnce)
	for i := range all {
		if errs[i] == nil {
			g.Go(func() error {
				errs[i] = do(ctx, i)
				return nil
			})
		}
	}
	_ = g.Wait() // The errors are in errs.
	return ctx.Err()
}

// unaskedBy returns the speakers that could not be asked, from the error of each.
func unaskedBy(all []report.Askee, errs []error) (unasked []report.Unasked) {
	for i, err := range errs {
		if err != nil {
			reason := strings.ReplaceAll(err.Error(), "\n", "; ") // Joined errors have one line each.
			unasked = append(unasked, report.Unasked{Node: all[i].Node, Reason: report.Clean(reason)})
		}
	}
	return unasked
}

// renewToken requests a token that is valid only for speakers, if there is none that lasts long enough.
func (p *speakers) renewToken(ctx context.Context) error {
	if time.Until(p.expires) > tokenLifetime/2 {
		return nil
	}
	seconds := int64(tokenLifetime / time.Second)
	request, err := p.kube.CoreV1().ServiceAccounts(p.own).CreateToken(ctx, viewer, &authenticationv1.TokenRequest{
		Spec: authenticationv1.TokenRequestSpec{Audiences: []string{inspect.Audience}, ExpirationSeconds: &seconds},
	}, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("request a token of ServiceAccount %s/%s, which the speakers require: %w", p.own, viewer, err)
	}
	p.token, p.expires = request.Status.Token, time.Now().Add(tokenLifetime)
	return nil
}

// speaker returns a client for a speaker.
func (p *speakers) speaker(s report.Askee) *inspect.Speaker {
	return &inspect.Speaker{Addresses: s.Addresses, Port: p.port, Key: s.Key, Token: p.token}
}
