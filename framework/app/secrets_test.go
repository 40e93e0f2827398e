package app

import (
	"errors"
	"testing"
)

// An app whose secret's file is not in order any more can still be changed, as long
// as the secret is left as it is.
func TestStoredSecretsStayChangeable(t *testing.T) {
	broken := false
	opts := Options{Secrets: true, SecretKnown: func(source string) (bool, error) {
		if broken && source == "file" {
			return false, errors.New("it is a directory")
		}
		return source == "file", nil
	}}
	stored := parsed(t, []byte(`{"id":"/a","cmd":"x","container":{"type":"DOCKER","docker":{"image":"i"}},
		"env":{"E":{"secret":"s"}},"secrets":{"s":{"source":"file"}}}`), opts)
	broken = true
	for _, c := range []struct {
		update, path string
	}{
		{`{"instances":0}`, ""},
		{`{"env":{"F":{"secret":"s"}}}`, "/env/F/secret"},
		{`{"secrets":{"s":{"source":"other"}}}`, "/env/E/secret"},
		{`{"secrets":{"s":{"source":"file"},"t":{"source":"file"}}}`, "/secrets/t/source"},
	} {
		u, err := ParseUpdate([]byte(c.update), opts)
		if err != nil {
			t.Fatal(err)
		}
		_, err = u.Apply(stored.ID, stored, true)
		if c.path == "" && err != nil || c.path != "" && !says(err, c.path, "") {
			t.Errorf("%s: %v, want an error at %q", c.update, err, c.path)
		}
	}
}
