package aril

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// settings are what `ARIL_*` variables say, by the names that workers and the Python client read;
// "" is what is not set. What the protocol or the mechanism would not look at is refused: somebody
// meant it.
type settings struct {
	given map[string]string // by lower-case name without the prefix
}

const (
	plaintext   = "PLAINTEXT"
	scram512    = "SCRAM-SHA-512"
	oauthBearer = "OAUTHBEARER"
)

var (
	settingNames = slices.Concat([]string{
		"tenant", "bootstrap", "jobs_topic", "replies_prefix", "security_protocol", "sasl_mechanism", "key",
	}, tlsNames, userNames, tokenNames)
	tlsNames   = []string{"ssl_cafile", "ssl_certfile", "ssl_keyfile", "ssl_key_password"}
	userNames  = []string{"sasl_username", "sasl_password"}
	tokenNames = []string{
		"sasl_token_provider", "sasl_token_file", "sasl_oidc_url", "sasl_oidc_client_id",
		"sasl_oidc_client_secret", "sasl_oidc_scope",
	}
	protocols  = []string{plaintext, "SSL", "SASL_PLAINTEXT", "SASL_SSL"}
	mechanisms = []string{"PLAIN", "SCRAM-SHA-256", scram512, oauthBearer}

	jobsTopicPattern     = regexp.MustCompile(`^[A-Za-z0-9._-]*\*?$`)
	repliesPrefixPattern = regexp.MustCompile(`^[A-Za-z0-9._-]+\.$`)
)

// readSettings reads variables by `lookup`, as os.LookupEnv is; `tenant` goes before ARIL_TENANT.
func readSettings(lookup func(string) (string, bool), tenant string) (settings, error) {
	s := settings{map[string]string{}}
	for _, name := range settingNames {
		if value, set := lookup(variable(name)); set {
			s.given[name] = value
		}
	}
	if tenant != "" {
		s.given["tenant"] = tenant
	}
	for name, standard := range map[string]string{
		"bootstrap": "localhost:9092", "jobs_topic": "jobs", "replies_prefix": "replies.", "security_protocol": plaintext,
	} {
		if _, set := s.given[name]; !set {
			s.given[name] = standard
		}
	}
	return s, s.check()
}

func variable(name string) string { return "ARIL_" + strings.ToUpper(name) }

func (s settings) get(name string) string { return s.given[name] }

func (s settings) protocol() string { return s.given["security_protocol"] }
func (s settings) tls() bool        { return strings.HasSuffix(s.protocol(), "SSL") }
func (s settings) sasl() bool       { return strings.HasPrefix(s.protocol(), "SASL") }

// mechanism is "" without SASL.
func (s settings) mechanism() string {
	if said, set := s.given["sasl_mechanism"]; set || !s.sasl() {
		return said
	}
	return scram512
}

// jobsTopic is the one that the tenant's jobs are sent to.
func (s settings) jobsTopic() string {
	if shared, own := strings.CutSuffix(s.given["jobs_topic"], "*"); own {
		return shared + s.given["tenant"]
	}
	return s.given["jobs_topic"]
}

func (s settings) check() error {
	jobs, replies := s.given["jobs_topic"], s.given["replies_prefix"]
	switch {
	case s.given["tenant"] == "":
		return badSetting("%s is not set, and no tenant was named", variable("tenant"))
	case !isTenant(s.given["tenant"]):
		return badSetting("%s: %q is no tenant's name (lower case, digits, -)", variable("tenant"), s.given["tenant"])
	case jobs == "" || !jobsTopicPattern.MatchString(jobs):
		return badSetting("%s: a topic's name, or one that ends in *", variable("jobs_topic"))
	case !repliesPrefixPattern.MatchString(replies):
		return badSetting("%s: a topic's name that ends in a dot", variable("replies_prefix"))
	case !slices.Contains(protocols, s.protocol()):
		return badSetting("%s: one of %s", variable("security_protocol"), strings.Join(protocols, ", "))
	}
	if err := s.checkTLS(); err != nil {
		return err
	}
	if !s.sasl() {
		return s.refuse(slices.Concat([]string{"sasl_mechanism"}, userNames, tokenNames), variable("security_protocol")+"="+s.protocol())
	}
	return s.checkSASL()
}

func (s settings) checkTLS() error {
	if !s.tls() {
		return s.refuse(tlsNames, variable("security_protocol")+"="+s.protocol())
	}
	if _, set := s.given["ssl_certfile"]; !set {
		return s.refuse([]string{"ssl_keyfile", "ssl_key_password"}, "no "+variable("ssl_certfile"))
	}
	if _, set := s.given["ssl_key_password"]; set {
		return badSetting("%s: Go reads no key that has a password", variable("ssl_key_password"))
	}
	return nil
}

func (s settings) checkSASL() error {
	said := variable("sasl_mechanism") + "=" + s.mechanism()
	switch s.mechanism() {
	case oauthBearer:
		if err := s.refuse(userNames, said); err != nil {
			return err
		}
		provider := s.given["sasl_token_provider"]
		if provider == "" {
			return badSetting("%s needs %s", said, variable("sasl_token_provider"))
		}
		said = variable("sasl_token_provider") + "=" + provider
		if provider != "file" {
			return badSetting("%s: this client has the provider file alone; others are for Options.Kafka", said)
		}
		if err := s.refuse(tokenNames[2:], said); err != nil {
			return err
		}
		return s.demand([]string{"sasl_token_file"}, said)
	case "PLAIN", "SCRAM-SHA-256", scram512:
		if err := s.refuse(tokenNames, said); err != nil {
			return err
		}
		return s.demand(userNames, said)
	}
	return badSetting("%s: one of %s", variable("sasl_mechanism"), strings.Join(mechanisms, ", "))
}

func (s settings) refuse(names []string, beside string) error {
	for _, name := range names {
		if _, set := s.given[name]; set {
			return badSetting("%s is not looked at with %s: leave one of them out", variable(name), beside)
		}
	}
	return nil
}

func (s settings) demand(names []string, by string) error {
	for _, name := range names {
		if s.given[name] == "" {
			return badSetting("%s needs %s", by, variable(name))
		}
	}
	return nil
}

func badSetting(text string, of ...any) error {
	return fmt.Errorf("%w: %w", ErrBadSetting, fmt.Errorf(text, of...))
}
