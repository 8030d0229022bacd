package aril

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/oauth"
	saslplain "github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

// OptionsFromEnv returns what the variables say that workers and the Python client read, too:
// ARIL_BOOTSTRAP, those of topics, TLS and SASL, ARIL_TENANT unless a tenant is named here, and
// ARIL_KEY, a file to sign with. The files of certificates and tokens are read again for each
// connection. The error is an [ErrBadSetting], in one line, or an [ErrBadKey].
func OptionsFromEnv(tenant string) (Options, error) {
	s, err := readSettings(os.LookupEnv, tenant)
	if err != nil {
		return Options{}, err
	}
	options := Options{
		Brokers:       strings.Split(s.get("bootstrap"), ","),
		Tenant:        s.get("tenant"),
		JobsTopic:     s.jobsTopic(),
		RepliesPrefix: s.get("replies_prefix"),
	}
	if s.tls() {
		if _, err := s.tlsConfig(); err != nil {
			return Options{}, err
		}
		options.Kafka = append(options.Kafka, kgo.Dialer(s.dial))
	}
	if s.sasl() {
		options.Kafka = append(options.Kafka, kgo.SASL(s.saslMechanism()))
	}
	if key := s.get("key"); key != "" {
		if options.Signer, err = SignerFromFile(key, ""); err != nil {
			return Options{}, err
		}
	}
	return options, nil
}

func (s settings) dial(ctx context.Context, network, address string) (net.Conn, error) {
	config, err := s.tlsConfig()
	if err != nil {
		return nil, err
	}
	dialer := tls.Dialer{NetDialer: &net.Dialer{Timeout: requestTime}, Config: config}
	return dialer.DialContext(ctx, network, address)
}

func (s settings) tlsConfig() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if path := s.get("ssl_cafile"); path != "" {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, badSetting("%s: %w", variable("ssl_cafile"), err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(text) {
			return nil, badSetting("%s: %s holds no certificate in PEM", variable("ssl_cafile"), path)
		}
	}
	if path := s.get("ssl_certfile"); path != "" {
		keyFile := s.get("ssl_keyfile")
		if keyFile == "" {
			keyFile = path // it may hold both
		}
		pair, err := tls.LoadX509KeyPair(path, keyFile)
		if err != nil {
			return nil, badSetting("%s: %w", variable("ssl_certfile"), err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

func (s settings) saslMechanism() sasl.Mechanism {
	user, password := s.get("sasl_username"), s.get("sasl_password")
	switch s.mechanism() {
	case "PLAIN":
		return saslplain.Auth{User: user, Pass: password}.AsMechanism()
	case "SCRAM-SHA-256":
		return scram.Auth{User: user, Pass: password}.AsSha256Mechanism()
	case oauthBearer:
		return oauth.Oauth(func(context.Context) (oauth.Auth, error) {
			text, err := os.ReadFile(s.get("sasl_token_file"))
			if err != nil {
				return oauth.Auth{}, badSetting("%s: %w", variable("sasl_token_file"), err)
			}
			return oauth.Auth{Token: strings.TrimSpace(string(text))}, nil
		})
	}
	return scram.Auth{User: user, Pass: password}.AsSha512Mechanism()
}
