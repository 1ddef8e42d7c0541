package speaker

import (
	"context"
	"time"

	"go.uber.org/zap"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/heraldlb/herald/speaker/bgp"
)

// podTimeout bounds the question whether the own pod was deleted.
const podTimeout = time.Second

// farewell is the cause for which this speaker ends: ErrRestart if its pod was deleted, which is what an
// update of Herald does; nil if only the process was told to end, as the shutdown of a node does. After an
// ErrRestart deputies answer for this node's addresses, and routers keep its routes, until the next speaker comes.
func (s *Speaker) farewell() error {
	if s.config.Pod == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), podTimeout)
	defer cancel()
	pod, err := s.config.Kube.CoreV1().Pods(s.config.Namespace).Get(ctx, s.config.Pod, metav1.GetOptions{})
	if err != nil {
		s.log.Warn("not known whether a successor follows: everything is given up", zap.String("pod", s.config.Pod), zap.Error(err))
		return nil
	}
	if pod.DeletionTimestamp == nil {
		return nil
	}
	return bgp.ErrRestart
}
