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
	// tokenLifetime is the shortest that the API server gives.
	tokenLifetime = 10 * time.Minute
	// atOnce is how many speakers are asked at the same time. What verify asks for goes to every machine on the segment.
	atOnce = 8
)

// speakers asks speakers on their ports.
type speakers struct {
	*cluster
	own  string // Herald's own namespace.
	port uint16

	token   string
	expires time.Time
}

// bind adds the flags that say how speakers are reached.
func (p *speakers) bind(cmd *cobra.Command) {
	cmd.Flags().Uint16Var(&p.port, "port", inspect.Port, "The port of the speakers.")
	bindOwn(cmd, &p.own)
}

// each calls do for each speaker that has no error yet, for some at the same time, and notes the errors by index. It fails
// if there is no token, or if ctx has ended.
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
	_ = g.Wait() // Errors are with the speakers.
	return ctx.Err()
}

// unaskedBy are the speakers that could not be asked, by the errors of each.
func unaskedBy(all []report.Askee, errs []error) (unasked []report.Unasked) {
	for i, err := range errs {
		if err != nil {
			reason := strings.ReplaceAll(err.Error(), "\n", "; ") // Of several errors each is a line.
			unasked = append(unasked, report.Unasked{Node: all[i].Node, Reason: report.Clean(reason)})
		}
	}
	return unasked
}

// renewToken has the API server make a token for the speakers alone, if there is none that lasts.
func (p *speakers) renewToken(ctx context.Context) error {
	if time.Until(p.expires) > tokenLifetime/2 {
		return nil
	}
	seconds := int64(tokenLifetime / time.Second)
	request, err := p.kube.CoreV1().ServiceAccounts(p.own).CreateToken(ctx, viewer, &authenticationv1.TokenRequest{
		Spec: authenticationv1.TokenRequestSpec{Audiences: []string{inspect.Audience}, ExpirationSeconds: &seconds},
	}, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("a token of ServiceAccount %s/%s, which the speakers want to see: %w", p.own, viewer, err)
	}
	p.token, p.expires = request.Status.Token, time.Now().Add(tokenLifetime)
	return nil
}

// speaker is one with what it takes to ask it.
func (p *speakers) speaker(s report.Askee) *inspect.Speaker {
	return &inspect.Speaker{Addresses: s.Addresses, Port: p.port, Key: s.Key, Token: p.token}
}
