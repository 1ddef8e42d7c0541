package report

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"
)

func TestRedact(t *testing.T) {
	for _, c := range []struct{ name, object, want string }{
		{"environment variables", `{spec: {containers: [{env: [{name: MODE, value: x}, {name: FROM, valueFrom: {secretKeyRef: {name: s, key: password}}}, {name: NONE}]}]}}`,
			`{spec: {containers: [{env: [{name: MODE, value: REDACTED}, {name: FROM, valueFrom: {secretKeyRef: {name: s, key: password}}}, {name: NONE}]}]}}`},
		{"arguments", `{args: [--log-level=debug, --password=x y, --token, abc, --api-key, --v, "2", --user=me, "https://me:pass@host/x", --token-file, /etc/t]}`,
			`{args: [--log-level=debug, --password=REDACTED, --token, REDACTED, --api-key, REDACTED, "2", --user=me, "https://REDACTED@host/x", --token-file, REDACTED]}`},
		{"headers", `{httpGet: {httpHeaders: [{name: Authorization, value: x}, {name: Accept, value: text}]}}`, `{httpGet: {httpHeaders: [{name: Authorization, value: REDACTED}, {name: Accept, value: text}]}}`},
		{"annotations, labels and who wrote what", `{metadata: {name: a, annotations: {kubectl.kubernetes.io/last-applied-configuration: '{"x":1}', example.org/password: x, herald.dev/pool: public}, labels: {api-token: x}, managedFields: [{manager: m, fieldsV1: {"f:spec": {}}}]}}`,
			`{metadata: {name: a, annotations: {kubectl.kubernetes.io/last-applied-configuration: REDACTED, example.org/password: REDACTED, herald.dev/pool: public}, labels: {api-token: REDACTED}, managedFields: [{manager: m}]}}`},
		{"what only refers to a Secret", `{spec: {passwordSecret: {name: tor, namespace: p}, volumes: [{secret: {secretName: s}}, {projected: {sources: [{serviceAccountToken: {path: token}}]}}], imagePullSecrets: [{name: pull}]}}`,
			`{spec: {passwordSecret: {name: tor, namespace: p}, volumes: [{secret: {secretName: s}}, {projected: {sources: [{serviceAccountToken: {path: token}}]}}], imagePullSecrets: [{name: pull}]}}`},
		{"what is not a credential", `{status: {identity: {publicKey: 00ff}, established: 2/2, number: 3, yes: true, none: null}}`, `{status: {identity: {publicKey: 00ff}, established: 2/2, number: 3, yes: true, none: null}}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			var object, want map[string]any
			if err := yaml.UnmarshalStrict([]byte(c.object), &object); err != nil {
				t.Fatal(err)
			}
			if err := yaml.UnmarshalStrict([]byte(c.want), &want); err != nil {
				t.Fatal(err)
			}
			Redact(object)
			if diff := cmp.Diff(want, object); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestRedactText(t *testing.T) {
	for text, want := range map[string]string{
		`level=info password=hunter2 x=1`:                                         `level=info password=REDACTED`,
		`{"token":"abc def","node":"n1"}`:                                         `{"token":REDACTED,"node":"n1"}`,
		`{"msg":"{\"clientSecret\": \"abc\", \"a\": 1}"}`:                         `{"msg":"{\"clientSecret\": REDACTED, \"a\": 1}"}`,
		`Authorization: Bearer abcdefgh.ijk`:                                      `Authorization: REDACTED`,
		`sent Bearer abcdefgh`:                                                    `sent Bearer REDACTED`,
		`got eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.c2ln from a`:                    `got REDACTED from a`,
		"key -----BEGIN EC PRIVATE KEY-----\nMHc\n-----END EC PRIVATE KEY----- x": `key REDACTED x`,
		`-----BEGIN PRIVATE KEY-----`:                                             `REDACTED`,
		`postgres://me:pass@db/x`:                                                 `postgres://REDACTED@db/x`,
		`["server","--token","abc","--v","2"]`:                                    `["server","--token",REDACTED,"--v","2"]`,
		`ran x --docker-password abc --v 2`:                                       `ran x --docker-password REDACTED`,
		`x --token --v`:                                                           `x --token REDACTED`,
		`AWS_SECRET_ACCESS_KEY: abc`:                                              `AWS_SECRET_ACCESS_KEY: REDACTED`,
		`node k8s-node1 owns 198.51.100.1: since 2026-11-27T09:36Z`:               `node k8s-node1 owns 198.51.100.1: since 2026-11-27T09:36Z`,
		`herald_speaker_sessions{peer="tor",state="Established"} 1`:               `herald_speaker_sessions{peer="tor",state="Established"} 1`,
		`{"password":"a\"b","node":"n1"}`:                                         `{"password":REDACTED,"node":"n1"}`,
		`spec.passwordSecret: the Secret has no key password`:                     `spec.passwordSecret: the Secret has no key password`,
		`reconcile key=red/web passive: true`:                                     `reconcile key=red/web passive: true`,
		`the Secret herald-system-peers/tor does not exist`:                       `the Secret herald-system-peers/tor does not exist`,
	} {
		if got := RedactText(text); got != want {
			t.Errorf("%s\nbecomes\n%s\nwant\n%s", text, got, want)
		}
	}
}

// secret must not be in any redacted text.
const secret = "hunter2-5f4dcc3b"

func TestNoTextHasTheSecret(t *testing.T) {
	for _, text := range []string{
		"Authorization: Token SECRET", "authorization: ApiKey SECRET", "Proxy-Authorization: Negotiate SECRET", `Authorization: Digest username="a", response="SECRET"`, "Cookie: a=b; session=SECRET", "Set-Cookie: a=b; SECRET", `map[Authorization:[Token SECRET]]`,
		"password=a,SECRET", "password=x&SECRET", "password: correct SECRET", "password:[104 SECRET 110]", `password="a"SECRET`, `{"password":"a\"SECRET"}`, `{"password": "SECRET`, `{"password":{"a":"SECRET"}}`, `password='a b SECRET'`, `password := "SECRET"`,
		"https://SECRET@github.com", "postgres://u:a/SECRET@h", "https://u:p@SECRET@h", "u:SECRET@tcp(db:3306)/x", "https://h/?sig=SECRET", "https://h/?a=b&X-Amz-Signature=SECRET",
		"DB_PASS=SECRET", "PGPASS=SECRET", "bgp-pass: SECRET", "pwd=SECRET", "psk=SECRET", "auth=SECRET", "--auth-key=SECRET", "--auth-key SECRET", "--key=SECRET", "--key SECRET", "X-Auth: SECRET", "md5-key: SECRET", "tcp-md5: SECRET", `["--agent-pw","SECRET"]`, `["--token","-SECRET"]`,
		`{"a":"{\"password\":\"SECRET\"}"}`, `{"a":"{\"b\":\"{\\\"password\\\":\\\"SECRET\\\"}\"}"}`,
		"-----BEGIN OPENSSH PRIVATE KEY-----\nS\n-----END OPENSSH PRIVATE KEY-----", "-----BEGIN PRIVATE KEY-----\nS",
	} {
		if got := RedactText(strings.ReplaceAll(text, "SECRET", secret)); strings.Contains(got, secret) {
			t.Errorf("%s\nbecomes\n%s", text, got)
		}
	}
	for _, text := range []string{"ghp_16C7e42F292c6912E7710c838347Ae178B4a", "AKIAIOSFODNN7EXAMPLE", "xoxb-123-456-abc", "abcdef.0123456789abcdef"} {
		if got := RedactText("got " + text + " from a"); got != "got REDACTED from a" {
			t.Errorf("%s\nbecomes\n%s", text, got)
		}
	}
}

func TestNoObjectHasTheSecret(t *testing.T) {
	for _, text := range []string{
		`{metadata: {annotations: {kapp.k14s.io/original: '{"env":[{"name":"B","value":"SECRET"}]}', banzaicloud.com/last-applied: SECRET, objectset.rio.cattle.io/applied: SECRET}}}`,
		`{spec: {template: {metadata: {annotations: {kubectl.kubernetes.io/last-applied-configuration: '{"env":[{"name":"B","value":"SECRET"}]}'}}}}}`,
		`{metadata: {annotations: {md5-key: SECRET, bgp-pass: SECRET, tokens: [SECRET], k3s.io/node-args: '["server","--agent-pw","SECRET"]'}}}`,
		`{spec: {containers: [{name: herald-ccm, args: [--token, -SECRET]}]}}`,
		`{spec: {containers: [{name: other, livenessProbe: {exec: {command: [redis-cli, -a, SECRET]}}, lifecycle: {preStop: {exec: {command: [SECRET]}}}}]}}`,
		`{spec: {template: {spec: {initContainers: [{name: other, command: [curl, -u, "me:SECRET"], args: [token, SECRET], env: [{name: A, value: SECRET}]}]}}}}`,
		`{spec: {ephemeralContainers: [{name: debugger, args: [SECRET]}]}}`,
		`{spec: {passwords: [SECRET], secret: {value: SECRET}, password: {a: SECRET, b: [{c: SECRET}]}, passwordSecretName: SECRET, tokenPath: SECRET}}`,
	} {
		var object map[string]any
		if err := yaml.UnmarshalStrict([]byte(strings.ReplaceAll(text, "SECRET", secret)), &object); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		Redact(object)
		got, err := yaml.Marshal(object)
		if err != nil || strings.Contains(string(got), secret) {
			t.Errorf("%s\nbecomes\n%s: %v", text, got, err)
		}
	}
	number := map[string]any{"password": int64(12345)}
	if Redact(number); number["password"] != redacted {
		t.Error(number)
	}
}

func TestIndexText(t *testing.T) {
	x := &Index{Files: []IndexedFile{{Path: "a"}, {Path: "b"}}}
	x.Miss("logs/a", errors.New("forbidden\ntoken=abc"))
	x.Miss("logs/b", errors.New("forbidden\ntoken=abc"))
	want := "! logs/a, logs/b: forbidden; token=REDACTED\nx.tar.gz has 2 files; index.yaml lists them. Look through it before you pass it on: no Secret was read, but logs may contain credentials.\n"
	if got := plainText(func(s Style) string { return x.Text(s, "x.tar.gz") }); got != want {
		t.Errorf("%q", got)
	}
}
