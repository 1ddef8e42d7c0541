package main

import (
	"context"
	"crypto/sha256"
	"net/http"
	"slices"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/cache"
	"k8s.io/client-go/kubernetes"

	"github.com/heraldlb/herald/speaker/inspect"
)

const (
	// verdictLifetime is how long a verdict of the API server is cached. A revoked token is accepted for that
	// long.
	verdictLifetime = time.Minute
	maxVerdicts     = 256
	reviewTimeout   = 10 * time.Second
)

// reviews ask the API server whether a client may use a path.
type reviews struct {
	// kube is a client with its own rate limit, because anybody who connects causes requests.
	kube     kubernetes.Interface
	verdicts *cache.LRUExpireCache // An HTTP status for each question.
}

func newReviews(kube kubernetes.Interface) *reviews {
	return &reviews{kube: kube, verdicts: cache.NewLRUExpireCache(maxVerdicts)}
}

// question is a question to the API server.
type question struct {
	token      [sha256.Size]byte // A hash, so that no token is kept.
	verb, path string
}

// guard calls next for clients that may use the path.
func (r *reviews) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		token, ok := strings.CutPrefix(request.Header.Get("Authorization"), "Bearer ")
		if !ok || token == "" {
			w.Header().Set("WWW-Authenticate", "Bearer")
			http.Error(w, "show a token: Authorization: Bearer TOKEN", http.StatusUnauthorized)
			return
		}
		status, err := r.review(request.Context(), token, strings.ToLower(request.Method), request.URL.Path)
		switch {
		case err != nil:
			http.Error(w, "the API server cannot be asked who you are: "+err.Error(), http.StatusServiceUnavailable)
		case status == http.StatusOK:
			next.ServeHTTP(w, request)
		default:
			http.Error(w, http.StatusText(status), status)
		}
	})
}

// review returns OK, Unauthorized or Forbidden, depending on whether the owner of a token may use a path.
func (r *reviews) review(ctx context.Context, token, verb, path string) (status int, err error) {
	q := question{sha256.Sum256([]byte(token)), verb, path}
	if verdict, ok := r.verdicts.Get(q); ok {
		return verdict.(int), nil
	}
	ctx, cancel := context.WithTimeout(ctx, reviewTimeout)
	defer cancel()
	user, err := r.user(ctx, token)
	if err != nil {
		return 0, err
	}
	status = http.StatusUnauthorized
	if user != nil {
		allowed, err := r.allowed(ctx, user, verb, path)
		if err != nil {
			return 0, err
		}
		if status = http.StatusForbidden; allowed {
			status = http.StatusOK
		}
	}
	r.verdicts.Add(q, status, verdictLifetime)
	return status, nil
}

// user returns the owner of a token, or nil. It accepts tokens for this port alone, and tokens for the API server,
// which Prometheus has.
func (r *reviews) user(ctx context.Context, token string) (*authenticationv1.UserInfo, error) {
	for _, audiences := range [][]string{{inspect.Audience}, nil} {
		review, err := r.kube.AuthenticationV1().TokenReviews().Create(ctx, &authenticationv1.TokenReview{
			Spec: authenticationv1.TokenReviewSpec{Token: token, Audiences: audiences},
		}, metav1.CreateOptions{})
		if err != nil {
			return nil, err
		}
		// An authenticator that does not know audiences does not confirm them.
		if s := review.Status; s.Authenticated && (audiences == nil || slices.Contains(s.Audiences, inspect.Audience)) {
			return &s.User, nil
		}
	}
	return nil, nil
}

func (r *reviews) allowed(ctx context.Context, user *authenticationv1.UserInfo, verb, path string) (bool, error) {
	extra := map[string]authorizationv1.ExtraValue{}
	for key, value := range user.Extra {
		extra[key] = authorizationv1.ExtraValue(value)
	}
	review, err := r.kube.AuthorizationV1().SubjectAccessReviews().Create(ctx, &authorizationv1.SubjectAccessReview{
		Spec: authorizationv1.SubjectAccessReviewSpec{
			User: user.Username, UID: user.UID, Groups: user.Groups, Extra: extra,
			NonResourceAttributes: &authorizationv1.NonResourceAttributes{Verb: verb, Path: path},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		return false, err
	}
	return review.Status.Allowed, nil
}
