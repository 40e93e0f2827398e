package volume

import (
	"context"
	"encoding/json"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"
)

// Secrets are option values that must stay out of sight. Printing or encoding
// them gives the keys only; drivers read them as the map that they are.
type Secrets map[string]string

const redacted = "***"

// String shows that there are secrets, never their values.
func (s Secrets) String() string {
	if len(s) == 0 {
		return "{}"
	}
	return "{" + redacted + "}"
}

// GoString keeps %#v from showing values.
func (s Secrets) GoString() string { return "volume.Secrets" + s.String() }

// MarshalJSON keeps encoders from writing values.
func (s Secrets) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

type secretsKey struct{}

// WithSecrets makes secrets known to what traces and reports calls under ctx,
// also of calls that do not carry them: drivers repeat them in answers.
func WithSecrets(ctx context.Context, s Secrets) context.Context {
	if len(s) == 0 {
		return ctx
	}
	return context.WithValue(ctx, secretsKey{}, s)
}

// AllSecrets are those that ctx knows of and those given.
func AllSecrets(ctx context.Context, given Secrets) Secrets {
	known, ok := ctx.Value(secretsKey{}).(Secrets)
	if !ok {
		return given
	}
	all := maps.Clone(known)
	maps.Copy(all, given)
	return all
}

// secretParts are what the names of options with secrets contain, secretEnds what
// they end with, both without separators: "account-key", "AccountKey" and
// "azureblob_account_key" are alike.
var (
	secretParts = []string{"accesskey", "accountkey", "authorization", "authkey", "bearer", "connectionstring", "connstr", "cookie",
		"credential", "keyring", "keytab", "passcode", "passphrase", "passwd", "password", "privatekey", "pwd", "sasurl", "secret", "token"}
	secretEnds = []string{"auth", "cred", "creds", "dsn", "jwt", "key", "keys", "otp", "pass", "psk", "sas", "sig", "signature"}
)

// SecretKey says whether the value of an option of this name is taken for a secret,
// whatever the policy says.
func SecretKey(name string) bool {
	plain := strings.Map(func(r rune) rune {
		if !unicode.IsLetter(r) && !unicode.IsDigit(r) {
			return -1
		}
		return unicode.ToLower(r)
	}, name)
	plain = strings.TrimRight(plain, "0123456789") // password2, key1
	return slices.ContainsFunc(secretParts, func(part string) bool { return strings.Contains(plain, part) }) ||
		slices.ContainsFunc(secretEnds, func(end string) bool { return strings.HasSuffix(plain, end) })
}

// spoken finds in a text what looks like a name with its value: key=value, key:
// value and "key": "value", the latter within JSON strings, too, --key value, and
// passwords in URLs, with or without a scheme. What only looks so, such as
// `volume "token": refused`, has no quotes around its value.
//
// Compiled when needed: programs that run once per mount pay for what they do.
var spoken = sync.OnceValue(func() *regexp.Regexp {
	const bare = `[^\s"'\\,;&{}()\[\]]+`
	return regexp.MustCompile(`(?:[\w.+-]*:)?//[^/\s:@"']*:(?P<url>[^/\s@"']+)@` +
		`|\s--(?P<flag>[\w.-]+)\s+(?:"(?P<flagdouble>(?:[^"\\]|\\.)*)|'(?P<flagsingle>[^']*)|(?P<flagbare>` + bare + `))` +
		`|(?P<key>[\w.-]+)(?:` +
		`(?:\s*=\s*|:\s*)(?:"(?P<double>(?:[^"\\]|\\.)*)|'(?P<single>[^']*)|(?P<bare>(?i:(?:bearer|basic)\s+)?` + bare + `))` +
		`|\\+"\s*:\s*(?:\\+"(?P<escaped>.*?)\\+"|(?P<escapednumber>[\w.+-]+))` +
		`|["']\s*[:=]\s*(?:"(?P<quoted>(?:[^"\\]|\\.)*)|'(?P<quotedsingle>[^']*)|(?P<number>[\d.+-]+))` +
		`)`)
})

// Redact takes out of a text the values of s, as they are and as JSON and URLs
// write them, and what the text itself calls a secret: drivers repeat options, also
// those of calls that this process did not make.
func (s Secrets) Redact(text string) string {
	if text == "" {
		return text
	}
	for _, value := range s.shapes() {
		text = replaceValue(text, value)
	}
	var out strings.Builder
	for {
		found := spoken().FindStringSubmatchIndex(text)
		if found == nil {
			return out.String() + text
		}
		from, to, end := secretIn(text, found)
		out.WriteString(text[:from])
		if from < to {
			out.WriteString(redacted)
		}
		out.WriteString(text[to:end])
		text = text[end:]
	}
}

// secretIn says where the secret is in what spoken found, and from where to look
// further: behind it, or behind a name that is none of a secret, whose value may
// hold some.
func secretIn(text string, found []int) (from, to, end int) {
	names := []int{spoken().SubexpIndex("key"), spoken().SubexpIndex("flag")}
	for _, name := range names {
		if k := found[2*name : 2*name+2]; k[0] >= 0 && !SecretKey(text[k[0]:k[1]]) {
			return k[1], k[1], k[1]
		}
	}
	for i := range spoken().NumSubexp() {
		if at := found[2*i+2:]; !slices.Contains(names, i+1) && at[0] >= 0 {
			return at[0], at[1], found[1]
		}
	}
	return found[1], found[1], found[1]
}

// shapes are the values in all their forms, longer ones first, so that none is left
// half.
func (s Secrets) shapes() []string {
	var out []string
	for _, value := range s {
		if value == "" {
			continue
		}
		out = append(out, value, url.QueryEscape(value), url.PathEscape(value))
		if data, err := json.Marshal(value); err == nil { // which a string never fails
			out = append(out, string(data[1:len(data)-1]))
		}
	}
	slices.Sort(out)
	out = slices.Compact(out)
	slices.SortStableFunc(out, func(a, b string) int { return len(b) - len(a) })
	return out
}

// wordLength is the length below which a value is replaced only where it stands
// alone: one such as "1" would blot out half of every message.
const wordLength = 4

func replaceValue(text, value string) string {
	if len(value) >= wordLength {
		return strings.ReplaceAll(text, value, redacted)
	}
	var out strings.Builder
	for {
		i := strings.Index(text, value)
		if i < 0 {
			return out.String() + text
		}
		before, _ := utf8.DecodeLastRuneInString(text[:i])
		after, _ := utf8.DecodeRuneInString(text[i+len(value):])
		if i == 0 && out.Len() > 0 { // its neighbour is written already
			before, _ = utf8.DecodeLastRuneInString(out.String())
		}
		out.WriteString(text[:i])
		if isWord(before) || isWord(after) {
			out.WriteString(value)
		} else {
			out.WriteString(redacted)
		}
		text = text[i+len(value):]
	}
}

func isWord(r rune) bool {
	return r != utf8.RuneError && (unicode.IsLetter(r) || unicode.IsDigit(r) || r == '_')
}

// RedactJSON is Redact for what was decoded from JSON: in strings and numbers, and
// whatever stands under the name of a secret. It returns a copy.
func (s Secrets) RedactJSON(v any) any {
	switch v := v.(type) {
	case string:
		return s.Redact(v)
	case json.Number:
		if text := s.Redact(v.String()); text != v.String() {
			return text
		}
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = s.RedactJSON(v[i])
		}
		return out
	case map[string]any:
		out := make(map[string]any, len(v))
		for k, item := range v {
			if SecretKey(k) && item != nil && item != "" {
				out[k] = redacted
			} else {
				out[k] = s.RedactJSON(item)
			}
		}
		return out
	}
	return v
}

// RedactOptions is a copy of options without the values of secrets.
func RedactOptions(options map[string]string) map[string]string {
	out := maps.Clone(options)
	for k, v := range out {
		if SecretKey(k) && v != "" {
			out[k] = redacted
		} else {
			out[k] = Secrets(nil).Redact(v)
		}
	}
	return out
}
