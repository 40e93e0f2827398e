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

// Redact takes out of a text the values of s, as they are and as JSON and URLs
// write them, and what the text itself calls a secret: drivers repeat options, also
// those of calls that this process did not make. It takes time in proportion to the
// text, whatever stands in it.
func (s Secrets) Redact(text string) string {
	for _, value := range s.shapes() {
		text = replaceValue(text, value)
	}
	var out strings.Builder
	written := 0
	for i := 0; i < len(text); {
		from, to, next := secretAt(text, i)
		if from < to {
			out.WriteString(text[written:from])
			out.WriteString(redacted)
			written = to
		}
		i = next
	}
	if written == 0 {
		return text
	}
	return out.String() + text[written:]
}

// secretAt says where the secret is of which the text speaks at i, none if from is
// to, and from where to look further: behind it, or behind a name that is none of
// a secret, whose value may hold some.
func secretAt(text string, i int) (from, to, next int) {
	end := i
	for end < len(text) && nameByte(text[end]) {
		end++
	}
	if slashes := strings.TrimPrefix(text[end:], ":"); strings.HasPrefix(slashes, "//") {
		from, to = passwordOfURL(text, len(text)-len(slashes)+2)
	}
	if from == to && i < end {
		from, to = valueOf(text, i, end)
	}
	return from, to, max(i+1, end, to)
}

func nameByte(b byte) bool {
	return 'a' <= b && b <= 'z' || 'A' <= b && b <= 'Z' || '0' <= b && b <= '9' || b == '_' || b == '.' || b == '-'
}

func isSpace(b byte) bool { return strings.IndexByte("\t\n\f\r ", b) >= 0 }

// passwordOfURL finds the password in user:password@host.
func passwordOfURL(text string, i int) (from, to int) {
	user := strings.IndexAny(text[i:], "/\t\n\f\r :@\"'")
	if user < 0 || text[i+user] != ':' {
		return 0, 0
	}
	from = i + user + 1
	length := strings.IndexAny(text[from:], "/\t\n\f\r @\"'")
	if length <= 0 || text[from+length] != '@' {
		return 0, 0
	}
	return from, from + length
}

// The forms in which a text gives the value of a name, from behind the name on; the
// first group that matches is the value. What only looks so, such as `volume
// "token": refused`, has no quotes around its value.
//
// Compiled when needed: programs that run once per mount pay for what they do.
var (
	// key=value, key: value and "key": "value", the latter within JSON strings, too.
	assigned = form(`(?:\s*=\s*|:\s*)(?:"((?:[^"\\]|\\.)*)|'([^']*)|((?i:(?:bearer|basic)\s+)?` + bare + `))` +
		`|\\+"\s*:\s*(?:\\+"(.*?)\\+"|([\w.+-]+))` +
		`|["']\s*[:=]\s*(?:"((?:[^"\\]|\\.)*)|'([^']*)|([\d.+-]+))`)
	// --key value
	flagged = form(`\s+(?:"((?:[^"\\]|\\.)*)|'([^']*)|(` + bare + `))`)
	// key is value, and key value
	stated = form(`\s+(?i:is|was)\s+(?:"([^"]*)"|'([^']*)'|(` + bare + `))`)
	joined = form(`\s+(?:"([^"]*)"|'([^']*)'|(` + bare + `))`)
)

const bare = `[^\s"'\\,;&{}()\[\]]+`

func form(pattern string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile("^(?:" + pattern + ")") })
}

// valueOf finds the value of the name text[i:end], if that is one of a secret.
func valueOf(text string, i, end int) (from, to int) {
	name, rest := text[i:end], text[end:]
	after := 0
	for after < len(rest) && isSpace(rest[after]) {
		after++
	}
	switch {
	case after == len(rest):
		return 0, 0
	case rest[after] == '=', after == 0 && strings.IndexByte(`:"'\`, rest[0]) >= 0:
		if SecretKey(name) {
			return match(assigned(), text, end)
		}
	case after == 0:
	case strings.HasPrefix(name, "--") && (i == 0 || isSpace(text[i-1])):
		if SecretKey(name) {
			return match(flagged(), text, end)
		}
	case verb(rest[after:]):
		if SecretKey(name) {
			from, to = match(stated(), text, end)
			return plausible(text, from, to, 1)
		}
	case spokenKey(name):
		from, to = match(joined(), text, end)
		return plausible(text, from, to, 6)
	}
	return 0, 0
}

// match finds the value in one of the forms.
func match(form *regexp.Regexp, text string, end int) (from, to int) {
	found := form.FindStringSubmatchIndex(text[end:])
	for g := 2; g < len(found); g += 2 {
		if found[g] >= 0 {
			return end + found[g], end + found[g+1]
		}
	}
	return 0, 0
}

// spokenKeys are what the names end with that stand before their value as such.
var spokenKeys = []string{"credential", "passcode", "passphrase", "passwd", "password", "pwd", "secret", "token"}

func spokenKey(name string) bool {
	return slices.ContainsFunc(spokenKeys, func(end string) bool {
		return len(name) >= len(end) && strings.EqualFold(name[len(name)-len(end):], end)
	})
}

// verb says whether a text begins with what gives a name its value in a sentence.
func verb(text string) bool {
	return slices.ContainsFunc([]string{"is", "was"}, func(verb string) bool {
		return len(text) > len(verb) && strings.EqualFold(text[:len(verb)], verb) && isSpace(text[len(verb)])
	})
}

// plausible passes on a value that stands in a sentence, unless it could be one of
// the sentence's own words: it is one that has a number in it and is of some
// length, or one in quotes where every length will do, as behind a verb.
func plausible(text string, from, to, least int) (int, int) {
	value := strings.TrimRight(text[from:to], ".:!?")
	switch {
	case from == to:
	case least == 1 && (text[from-1] == '"' || text[from-1] == '\''):
		return from, to
	case strings.HasPrefix(value, "/"), strings.Contains(value, "://"), strings.Contains(strings.TrimRight(value, "="), "="):
	case len(value) < least || !strings.ContainsFunc(value, unicode.IsDigit):
	case least == 1 && len(value) >= 4, strings.ContainsFunc(value, unicode.IsLetter):
		return from, from + len(value)
	}
	return 0, 0
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
