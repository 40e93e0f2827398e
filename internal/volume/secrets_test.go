package volume

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

func TestSecretKey(t *testing.T) {
	for _, key := range strings.Fields(`pwd PWD sftp-pwd auth basic_auth oauth authorization dsn DSN keyring client.keyring
		account-key accountKey AccountKey access-key access_key accesskey s3-access-key-id secretkey secret-access-key
		key key1 sshKey ssh-private-key privatekey api.key apikey encryption-key sas sas-url azureblob_sas_url SasToken
		token bearer-token passphrase pass password password2 passwd passcode credential credentials creds cred psk otp
		jwt connection-string connectionString cookie signature keytab`) {
		if !SecretKey(key) {
			t.Errorf("%s is no secret", key)
		}
	}
	for _, key := range strings.Fields(`size type path name fstype user username mountpoint o device author keyspace
		passthrough region host port uid mode options cache-dir volumename keypath`) {
		if SecretKey(key) {
			t.Errorf("%s is a secret", key)
		}
	}
}

func TestRedact(t *testing.T) {
	known := Secrets{"pin": "47", "opaque": `s3cr"et <&>`, "part": "s3cr", "empty": ""}
	for text, want := range map[string]string{
		"":                               "",
		"pwd=hunter2":                    "pwd=***",
		"cannot mount: PWD = hunter2, x": "cannot mount: PWD = ***, x",
		"o=addr=h,username=u,password=hunter2,vers=3":                            "o=addr=h,username=u,password=***,vers=3",
		`{"account-key": "two words, x", "size": "5"}`:                           `{"account-key": "***", "size": "5"}`,
		`{\"dsn\": \"two words\", \"size\": \"5\"}`:                              `{\"dsn\": \"***\", \"size\": \"5\"}`,
		`{"token": 4711, "size": 5}`:                                             `{"token": ***, "size": 5}`,
		`{'sas': 'hunter2'}`:                                                     `{'sas': '***'}`,
		`auth="hun\"ter2" done`:                                                  `auth="***" done`,
		"keyring: hunter2; done":                                                 "keyring: ***; done",
		"Authorization: Bearer abc.def done":                                     "Authorization: *** done",
		"dial https://u:hunter2@host/p?sig=abc&x=1":                              "dial https://u:***@host/p?sig=***&x=1",
		"--volumeopts passphrase=hunter2 --x":                                    "--volumeopts passphrase=*** --x",
		"run: sshfs --password hunter2 --user u":                                 "run: sshfs --password *** --user u",
		`run: x --auth-token "two words" --size 5`:                               `run: x --auth-token "***" --size 5`,
		"run: x --opts password=hunter2 --size 5":                                "run: x --opts password=*** --size 5",
		"mount //u:hunter2@host/share":                                           "mount //u:***@host/share",
		"the access-key is not known, nor --size 5 key":                          "the access-key is not known, nor --size 5 key",
		"login failed: password is hunter2.":                                     "login failed: password is ***.",
		"the Password was 4711, size 5":                                          "the Password was ***, size 5",
		`the secret is "two words"`:                                              `the secret is "***"`,
		"the api-key is 'hunter'":                                                "the api-key is '***'",
		"invalid token abc123def: denied":                                        "invalid token ***: denied",
		"wrong password hunter2":                                                 "wrong password ***",
		`no such auth-token "YWJj1DE=" here`:                                     `no such auth-token "***" here`,
		"token is token is hunter2":                                              "token is token is ***",
		"password =\thunter2":                                                    "password =\t***",
		"token://u:hunter2@h":                                                    "token://u:***@h",
		"//secret:@hunter2":                                                      "//secret:***",
		"the token is expired, password is too-short":                            "the token is expired, password is too-short",
		"token 5, password size=5, secret /dev/sda1, credential https://host/v1": "token 5, password size=5, secret /dev/sda1, credential https://host/v1",
		"secret volume \"v1234567\" with a password of 12 bytes":                 "secret volume \"v1234567\" with a password of 12 bytes",
		"exit 47, not 1470":                                                      "exit ***, not 1470",
		`login with s3cr"et <&> failed`:                                          `login with *** failed`,
		`login with s3cr\"et \u003c\u0026\u003e failed`:                          `login with *** failed`,
		"GET /?q=s3cr%22et+%3C%26%3E failed":                                     "GET /?q=*** failed",
		"s3cr":                                                                   "***",
		`mount volume "token" with driver "auth": refused by the driver (status 500): no`: `mount volume "token" with driver "auth": refused by the driver (status 500): no`,
		"size=5 path=/a/b http://host:80/x a:b@c":                                         "size=5 path=/a/b http://host:80/x a:b@c",
	} {
		if got := known.Redact(text); got != want {
			t.Errorf("%q becomes %q, want %q", text, got, want)
		}
		if again := known.Redact(want); again != want {
			t.Errorf("%q becomes %q the second time", want, again)
		}
	}
}

// Text that a driver makes costs time in proportion to its length, no more: with
// the square of it this test would not end.
func TestRedactIsNotHeldUp(t *testing.T) {
	for _, part := range []string{"a=", `a="`} {
		text := strings.Repeat(part, 1<<18)
		if got := Secrets(nil).Redact(text); got == "" {
			t.Errorf("%q: nothing is left", part)
		}
	}
}

func TestRedactJSON(t *testing.T) {
	decode := func(text string) (v any) {
		if err := json.Unmarshal([]byte(text), &v); err != nil {
			t.Fatal(err)
		}
		return v
	}
	in := `{"Opts": {"pwd": "a b", "size": "5", "keyring": {"x": ["y"]}, "dsn": "", "sas": null}, "List": ["auth=x", 7, true], "Name": "hunter2"}`
	want := `{"Opts": {"pwd": "***", "size": "5", "keyring": "***", "dsn": "", "sas": null}, "List": ["auth=***", 7, true], "Name": "***"}`
	v := decode(in)
	if got := (Secrets{"x": "hunter2"}).RedactJSON(v); !reflect.DeepEqual(got, decode(want)) {
		t.Errorf("%v", got)
	}
	if !reflect.DeepEqual(v, decode(in)) {
		t.Error("changed what it was given")
	}
	if got := (Secrets{"x": "4711"}).RedactJSON(json.Number("4711")); got != "***" {
		t.Errorf("%v", got)
	}
}

func TestRedactOptions(t *testing.T) {
	in := map[string]string{"AccessKey": "x", "size": "5", "o": "username=u,password=p", "auth": ""}
	want := map[string]string{"AccessKey": "***", "size": "5", "o": "username=u,password=***", "auth": ""}
	if got := RedactOptions(in); !reflect.DeepEqual(got, want) || in["AccessKey"] != "x" {
		t.Errorf("%v", got)
	}
	if RedactOptions(nil) != nil {
		t.Error("options out of nothing")
	}
}
