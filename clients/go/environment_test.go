package aril

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// unset leaves none of our variables to a test.
func unset(t *testing.T) {
	t.Helper()
	for _, name := range settingNames {
		t.Setenv(variable(name), "") // restores it afterwards
		os.Unsetenv(variable(name))
	}
}

func TestEnvironmentVectors(t *testing.T) {
	type vector struct {
		Name, Tenant, Needs, Refused string
		Environ, Expect              map[string]string
	}
	each(t, "environments", func(v vector) string { return v.Name }, func(t *testing.T, v vector) {
		lookup := func(name string) (string, bool) { value, set := v.Environ[name]; return value, set }
		found, err := readSettings(lookup, v.Tenant)
		refused := v.Expect["error"]
		if v.Needs != "" && v.Needs != "token_file" {
			refused = v.Refused // this client has none of it
		}
		if refused != "" {
			if !errors.Is(err, ErrBadSetting) || !strings.Contains(err.Error(), variable(refused)) {
				t.Errorf("%v", err)
			}
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		told := map[string]string{"jobs_topic": found.jobsTopic(), "sasl_mechanism": found.mechanism()}
		for _, name := range settingNames {
			value, set := told[name]
			if !set {
				value = found.get(name)
			}
			if value != v.Expect[name] {
				t.Errorf("%s is %q, want %q", name, value, v.Expect[name])
			}
		}
	})
}

func TestOptionsFromEnv(t *testing.T) {
	unset(t)
	t.Setenv("ARIL_TENANT", "acme")
	t.Setenv("ARIL_BOOTSTRAP", "a:1,b:2")
	t.Setenv("ARIL_JOBS_TOPIC", "jobs.*")
	t.Setenv("ARIL_SECURITY_PROTOCOL", "SASL_PLAINTEXT")
	t.Setenv("ARIL_SASL_USERNAME", "u")
	t.Setenv("ARIL_SASL_PASSWORD", "p")
	options, err := OptionsFromEnv("zeta")
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(options.Brokers, []string{"a:1", "b:2"}) || options.Tenant != "zeta" ||
		options.JobsTopic != "jobs.zeta" || options.RepliesPrefix != "replies." || len(options.Kafka) != 1 {
		t.Errorf("%+v", options)
	}
}

func TestWhatIsNamedIsLookedAtAtOnce(t *testing.T) {
	none := filepath.Join(t.TempDir(), "none.pem")
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, given := range []struct {
		name, path string
		want       error
	}{
		{"ssl_cafile", none, ErrBadSetting}, {"ssl_cafile", empty, ErrBadSetting},
		{"ssl_certfile", none, ErrBadSetting}, {"key", none, ErrBadKey},
	} {
		unset(t)
		t.Setenv("ARIL_TENANT", "acme")
		t.Setenv("ARIL_SECURITY_PROTOCOL", "SSL")
		t.Setenv(variable(given.name), given.path)
		if _, err := OptionsFromEnv(""); !errors.Is(err, given.want) || !strings.Contains(err.Error(), given.path) {
			t.Errorf("%s: %v", given.name, err)
		}
	}
}
