package secret

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestDir(t *testing.T) {
	base := t.TempDir()
	path := filepath.Join(base, "secrets")
	for name, content := range map[string]string{
		"secrets/db/password": "hunter2\n", "secrets/two": "a\n\n", "secrets/empty": "", "outside": "not for tasks",
		"secrets/large": strings.Repeat("x", maxSize+1),
	} {
		file := filepath.Join(base, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("../outside", filepath.Join(path, "link")); err != nil {
		t.Fatal(err)
	}
	d, err := OpenDir(path)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for source, want := range map[string]string{"db/password": "hunter2", "/db/password": "hunter2", "two": "a\n", "empty": ""} {
		if v, known, err := d.Value(source); err != nil || !known || v != want {
			t.Errorf("%s: %q %t %v", source, v, known, err)
		}
	}
	if _, known, err := d.Value("none"); known || err != nil {
		t.Errorf("no file: %t %v", known, err)
	}
	for _, source := range []string{"../outside", "link", "db", "large"} {
		if v, known, err := d.Value(source); err == nil || known || v != "" || strings.Contains(err.Error(), "not for tasks") {
			t.Errorf("%s: %q %t %v", source, v, known, err)
		}
	}
	if _, err := OpenDir(filepath.Join(base, "nowhere")); err == nil {
		t.Error("a directory that is not there was opened")
	}
}
