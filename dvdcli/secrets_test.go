package main

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mesos-dvdi/dvdi/internal/volume/volumetest"
)

// secretOptions are options whose values must not be seen anywhere, whatever the
// policy says, each with a value of its own.
func secretOptions() (args []string, asJSON, asText string) {
	opts := map[string]string{}
	var text []string
	for i, key := range strings.Fields(`pwd auth dsn keyring account-key access-key accesskey secretkey sas token passphrase
		credential password api_key ssh-private-key connectionString client_secret azureblob-sas-url cookie psk`) {
		opts[key] = fmt.Sprintf("hunter-%d/x y", i)
		args = append(args, "--volumeopts="+key+"="+opts[key])
		text = append(text, fmt.Sprintf("%s=hunter-%d/x", key, i))
	}
	args = append(args, "--volumeopts=o=username=u,password=hunter-99", "--volumeopts=size=5", "--volumeopts=url=https://u:hunter-98@host/")
	data, err := json.Marshal(opts)
	if err != nil {
		panic(err) // a map of strings
	}
	return args, string(data), strings.Join(text, ", ")
}

// Secrets go to the plugin and nowhere else, though the plugin repeats them in every
// answer, also in those to commands that do not know them: not to stdout, stderr,
// the trace, the ledger's files and what shows them.
func TestSecretsAreNowhere(t *testing.T) {
	args, asJSON, asText := secretOptions()
	p := volumetest.Start(t, volumetest.Config{})
	b := newBox(t, p.PluginDir())
	check := func(what, text string) {
		t.Helper()
		if i := strings.Index(text, "hunter-"); i >= 0 {
			t.Errorf("%s shows %.60q", what, text[max(0, i-30):])
		}
	}
	run := func(code int, want string, args ...string) {
		t.Helper()
		for _, output := range []string{"text", "json"} {
			out := b.run(append(args, "--output="+output)...)
			if out.code != code || !strings.Contains(out.stdout+out.stderr, want) {
				t.Errorf("%s: %+v lacks %q", args, out, want)
			}
			check(strings.Join(args[:2], " ")+" --output="+output, out.stdout+out.stderr)
		}
	}
	volume := []string{"--volumedriver=test", "--volumename=v", "--verbose"}
	with := func(words ...string) []string { return append(words, volume...) }
	answer := func(method string, status int, body string) {
		p.Add(volumetest.Rule{Method: method, Do: volumetest.DoAnswer, Status: status, Body: body})
	}
	quoted, err := json.Marshal(asJSON)
	if err != nil {
		t.Fatal(err)
	}
	failure := fmt.Sprintf(`{"Err": "no luck with %s and " , "Opts": %s}`, asText, quoted)

	answer("Mount", 500, failure)
	run(exitFailure, "no luck", append(with("mount"), args...)...)
	answer("Mount", 500, "no luck with "+asText+" and "+asJSON) // no JSON at all
	run(exitFailure, "no luck", append(with("mount"), args...)...)
	run(exitUsage, "unexpected argument", append(with("mount"), "password=hunter-97")...)
	p.Clear()
	if got := p.States()["v"].Options["keyring"]; !strings.HasPrefix(got, "hunter-") {
		t.Errorf("the plugin got %q", got)
	}

	b.must(append(with("mount"), args...)...)
	details := fmt.Sprintf(`{"Name": "v", "Status": {"opts": %s, "text": %q, "size": "5"}}`, asJSON, asText)
	answer("Get", 200, `{"Volume": `+details+`}`)
	answer("List", 200, `{"Volumes": [`+details+`]}`)
	run(exitOK, "VolumeDriver.Get", with("get")...)
	run(exitOK, "VolumeDriver.List", "list", "--volumedriver=test", "--verbose")
	answer("Unmount", 500, failure)
	run(exitFailure, "no luck", with("unmount")...)
	answer("Unmount", 500, "no luck with "+asText+" and "+asJSON)
	run(exitFailure, "no luck", with("unmount")...)
	for _, words := range []string{"status", "ledger list", "ledger verify", "ledger repair --yes", "doctor", "drivers"} {
		out := b.run(strings.Fields(words)...)
		check(words, out.stdout+out.stderr)
		out = b.run(append(strings.Fields(words), "--output=json")...)
		check(words+" --output=json", out.stdout+out.stderr)
	}
	run(exitOK, `"size": "5"`, with("ledger", "show")...)
	run(exitOK, "no luck", "ledger", "show", "--volumedriver=test", "--volumename=v")
	checkFiles(t, b, check)
}

// checkFiles reads whatever the box wrote.
func checkFiles(t *testing.T, b *box, check func(what, text string)) {
	t.Helper()
	files := 0
	for _, dir := range []string{"run", "state", "host"} {
		err := filepath.WalkDir(filepath.Join(b.dir, dir), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			files++
			data, err := os.ReadFile(path)
			check(path, string(data))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if files == 0 {
		t.Error("no files")
	}
}

// What another version of this program wrote with secrets is shown without them.
func TestSecretsInOldRecords(t *testing.T) {
	p := volumetest.Start(t, volumetest.Config{})
	b := newBox(t, p.PluginDir())
	b.must(mountArgs(p, "v", "--volumeopts=size=5")...)
	file := b.records()[0].File
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	old := strings.Replace(string(data), `"size": "5"`, `"size": "5", "pwd": "hunter-1"`, 1)
	old = strings.Replace(old, `"phase": "mounted"`, `"phase": "mounted", "lastError": "dsn=hunter-2", "publishContext": {"auth": "hunter-3"}`, 1)
	if err := os.WriteFile(file, []byte(old), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, words := range []string{"status", "ledger list", "ledger show --volumedriver=test --volumename=v"} {
		for _, output := range []string{"text", "json"} {
			text := b.must(append(strings.Fields(words), "--output="+output)...)
			if strings.Contains(text, "hunter") || output == "json" && strings.Count(text, "***") != 3 {
				t.Errorf("%s: %s", words, text)
			}
		}
	}
}
