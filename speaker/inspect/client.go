package inspect

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
	"strconv"
	"strings"
	"time"
)

// maxResponse bounds the bytes of a response. It is enough for MaxQuestions addresses on many interfaces, and for more routes
// than a speaker sends.
const maxResponse = 16 << 20

// maxError bounds the bytes of an error that a speaker returns.
const maxError = 1024

// Speaker is a client of the port of one speaker.
type Speaker struct {
	Addresses []string // of its node
	Port      uint16
	Key       ed25519.PublicKey // the key in its SpeakerStatus; no other key is trusted
	Token     string
}

// Exchange sends a request and reads the response, which is JSON.
func (s *Speaker) Exchange(ctx context.Context, method, path string, body []byte, response any) error {
	return s.Open(ctx, method, path, body, func(answer io.Reader) error {
		content, err := io.ReadAll(io.LimitReader(answer, maxResponse))
		if err != nil {
			return err
		}
		if err := json.Unmarshal(content, response); err != nil {
			return fmt.Errorf("its response cannot be read: %w", err)
		}
		return nil
	})
}

// Verify makes the speaker ask the questions. It may return answers and an error.
func (s *Speaker) Verify(ctx context.Context, questions []Question) ([]Answer, error) {
	body, err := json.Marshal(Request{Addresses: questions})
	if err != nil {
		return nil, err
	}
	var heard Response
	if err := s.Exchange(ctx, http.MethodPost, "/verify", body, &heard); err != nil {
		return nil, err
	}
	if heard.Error != "" {
		return heard.Answers, errors.New(heard.Error[:min(len(heard.Error), maxError)])
	}
	return heard.Answers, nil
}

// Open sends a request and calls read with the body of the response.
func (s *Speaker) Open(ctx context.Context, method, path string, body []byte, read func(io.Reader) error) error {
	ctx, cancel := context.WithTimeout(ctx, 40*time.Second)
	defer cancel()
	transport := s.transport()
	defer transport.CloseIdleConnections()
	// The host name is not resolved: the transport knows the node's addresses.
	request, err := http.NewRequestWithContext(ctx, method, "https://herald-speaker"+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer "+s.Token)
	request.Header.Set("Content-Type", "application/json")
	answer, err := transport.RoundTrip(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		content, err := io.ReadAll(io.LimitReader(answer.Body, 200))
		if err != nil {
			return err
		}
		return fmt.Errorf("%s: %s", answer.Status, strings.TrimSpace(string(content)))
	}
	return read(answer.Body)
}

// transport returns a transport that connects to the first of the node's addresses that can be reached, and trusts only the
// speaker's key.
func (s *Speaker) transport() *http.Transport {
	dialer := &net.Dialer{Timeout: 5 * time.Second}
	return &http.Transport{
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			var errs []error
			for _, a := range s.Addresses {
				c, err := dialer.DialContext(ctx, network, net.JoinHostPort(a, strconv.Itoa(int(s.Port))))
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
