package lab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes/scheme"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

// createPolicies creates Herald's admission policies. It does not use kubectl, because kubectl would first
// run API discovery and every lab start would wait for that.
func (c *ControlPlane) createPolicies(ctx context.Context) error {
	folder := filepath.Join(c.options.Root, "manifests", "policies")
	for _, name := range []string{"allocations.yaml", "controller.yaml", "ippools.yaml", "speakers.yaml"} {
		if err := c.createPoliciesIn(ctx, filepath.Join(folder, name)); err != nil {
			return err
		}
	}
	return nil
}

func (c *ControlPlane) createPoliciesIn(ctx context.Context, path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	for documents := yaml.NewYAMLReader(bufio.NewReader(file)); ; {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = c.createPolicy(ctx, document)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
}

func (c *ControlPlane) createPolicy(ctx context.Context, document []byte) error {
	object, kind, err := scheme.Codecs.UniversalDeserializer().Decode(document, nil, nil)
	if err != nil {
		return err
	}
	api := c.Client.AdmissionregistrationV1()
	switch o := object.(type) {
	case *admissionv1.ValidatingAdmissionPolicy:
		_, err = api.ValidatingAdmissionPolicies().Create(ctx, o, metav1.CreateOptions{})
	case *admissionv1.ValidatingAdmissionPolicyBinding:
		_, err = api.ValidatingAdmissionPolicyBindings().Create(ctx, o, metav1.CreateOptions{})
	default:
		err = fmt.Errorf("%s is not an admission policy", kind)
	}
	return err
}

// awaitPolicies returns when the API server enforces the policies. The API server looks for new policies
// once a second. Most of the wait is the delay of two seconds with which the API server holds back the first
// creation of a new kind, for the sake of its replicas. Without awaitPolicies, stories would have that delay.
func (c *ControlPlane) awaitPolicies(ctx context.Context) error {
	reversed := &herald.IPPool{
		ObjectMeta: metav1.ObjectMeta{Name: "reversed"},
		Spec:       herald.IPPoolSpec{Addresses: []herald.AddressRange{"198.51.100.2-198.51.100.1"}},
	}
	return Eventually(ctx, func(ctx context.Context) error {
		_, err := c.Herald.Pools.Create(ctx, reversed, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		switch {
		case err == nil:
			return errors.New("the API server does not enforce the policy ippools.herald.dev")
		case apierrors.IsInvalid(err):
			return nil
		}
		return err
	})
}
