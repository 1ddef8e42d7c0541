package speaker

import (
	"context"
	"time"

	"go.uber.org/zap"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/heraldlb/herald/speaker/bgp"
)

// podTimeout bounds the request that finds out whether the speaker's own pod was deleted.
const podTimeout = time.Second

// farewell returns the cause with which this speaker ends. It is ErrRestart if the speaker's pod was deleted, as an update
// of Herald does. It is nil if only the process was told to end, as the shutdown of a node does, or if the API server does
// not say in time whether the pod was deleted. After ErrRestart deputies answer for this node's addresses, and routers keep
// its routes, until the next speaker starts.
func (s *Speaker) farewell() error {
	if s.config.Pod == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), podTimeout)
	defer cancel()
	pod, err := s.config.Kube.CoreV1().Pods(s.config.Namespace).Get(ctx, s.config.Pod, metav1.GetOptions{})
	if err != nil {
		s.log.Warn("cannot find out whether this pod was deleted: withdrawing all addresses", zap.String("pod", s.config.Pod), zap.Error(err))
		return nil
	}
	if pod.DeletionTimestamp == nil {
		return nil
	}
	return bgp.ErrRestart
}
