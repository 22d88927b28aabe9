package kubetest

import (
	"context"
	"fmt"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/client-go/rest"
)

var (
	createOptions = metav1.CreateOptions{}
	getOptions    = metav1.GetOptions{}
)

// CAAudience is the audience of the tokens that Tulle's certificate authority
// takes.
const CAAudience = "istio-ca"

// Token is what a kubelet projects into pod: a token of its service account,
// bound to the pod, for the audiences, CAAudience when none is named. The pod
// must be an object of the API, as Create returned it; its token names its node
// if it has one. life is at least ten minutes, zero means an hour.
func (a *API) Token(ctx context.Context, pod *corev1.Pod, life time.Duration, audiences ...string) (string, error) {
	ref := &authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: pod.Name, UID: pod.UID}
	return a.token(ctx, pod.Namespace, pod.Spec.ServiceAccountName, ref, life, audiences)
}

// AccountToken is a token of a service account that is bound to nothing.
func (a *API) AccountToken(ctx context.Context, namespace, account string, audiences ...string) (string, error) {
	return a.token(ctx, namespace, account, nil, 0, audiences)
}

func (a *API) token(ctx context.Context, namespace, account string, ref *authenticationv1.BoundObjectReference, life time.Duration, audiences []string) (string, error) {
	if len(audiences) == 0 {
		audiences = []string{CAAudience}
	}
	if life == 0 {
		life = time.Hour
	}
	seconds := int64(life / time.Second)
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		Audiences: audiences, BoundObjectRef: ref, ExpirationSeconds: &seconds,
	}}
	answer, err := a.Client.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, account, request, createOptions)
	if err != nil {
		return "", fmt.Errorf("token of %s/%s: %w", namespace, account, err)
	}
	return answer.Status.Token, nil
}

// As is Config for a service account, with the rights that the API's rules give
// it. It is the administrator who acts as the account; limits of rate stay off.
func (a *API) As(namespace, account string) *rest.Config {
	c := rest.CopyConfig(a.Config)
	c.Impersonate = rest.ImpersonationConfig{
		UserName: "system:serviceaccount:" + namespace + ":" + account,
		Groups:   []string{"system:serviceaccounts", "system:serviceaccounts:" + namespace, "system:authenticated"},
	}
	return c
}

// closeIdle closes the connections that client-go keeps for configs like c.
func closeIdle(c *rest.Config) {
	if transport, err := rest.TransportFor(c); err == nil {
		utilnet.CloseIdleConnectionsFor(transport)
	}
}
