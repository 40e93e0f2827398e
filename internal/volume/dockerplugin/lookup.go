package dockerplugin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/mesos-dvdi/dvdi/internal/volume"
)

// pluginVolume is a volume as Get and List describe it.
type pluginVolume struct {
	Name       string
	Mountpoint string
	// Only for people, so a wrong type is no reason to lose the volume.
	CreatedAt any
	Status    any
}

func (d *driver) translate(v pluginVolume) volume.Volume {
	translated := volume.Volume{Ref: volume.Ref{Name: v.Name}, Mountpoint: d.found.managed.rescope(v.Mountpoint)}
	if v.CreatedAt != nil {
		translated.CreatedAt = fmt.Sprint(v.CreatedAt)
	}
	switch status := v.Status.(type) {
	case nil:
	case map[string]any:
		translated.Status = status
	default:
		translated.Status = map[string]any{"status": status}
	}
	return translated
}

// listAnswer remembers whether the answer was a list at all, and not that of a
// plugin that answers anything with success.
type listAnswer struct {
	volumes  []*pluginVolume
	positive bool
}

// UnmarshalJSON implements json.Unmarshaler. Go plugins write an empty list as
// null.
func (l *listAnswer) UnmarshalJSON(data []byte) error {
	var answer struct{ Volumes json.RawMessage }
	if err := json.Unmarshal(data, &answer); err != nil {
		return err
	}
	if answer.Volumes == nil {
		return nil
	}
	l.positive = true
	return json.Unmarshal(answer.Volumes, &l.volumes)
}

// List implements volume.Driver.
func (d *driver) List(ctx context.Context) ([]volume.Volume, error) {
	volumes, _, err := d.list(ctx, "")
	return volumes, err
}

// list lists the volumes, and says whether the plugin really keeps a list.
func (d *driver) list(ctx context.Context, onBehalfOf string) (volumes []volume.Volume, positive bool, err error) {
	var answer listAnswer
	_, err = d.do(ctx, call{method: methodList, volume: onBehalfOf, request: struct{}{}, result: &answer})
	if err != nil {
		return nil, false, err
	}
	volumes = []volume.Volume{}
	for _, v := range answer.volumes {
		if v != nil {
			volumes = append(volumes, d.translate(*v))
		}
	}
	return volumes, answer.positive, nil
}

// Get implements volume.Driver. The protocol has no way to say that a volume
// does not exist, so a Get that brings no volume is checked against List.
func (d *driver) Get(ctx context.Context, ref volume.Ref) (volume.Volume, error) {
	start := d.config.Clock.Now()
	var answer struct{ Volume *pluginVolume }
	c := call{method: methodGet, volume: ref.Name, request: nameRequest{ref.Name}, result: &answer}
	_, err := d.do(ctx, c)
	if err == nil && answer.Volume != nil && (answer.Volume.Name != "" || answer.Volume.Mountpoint != "") {
		v := d.translate(*answer.Volume)
		v.Name = ref.Name
		return v, nil
	}
	if err == nil {
		err = d.fail(c, start, volume.NotFound, http.StatusOK, "the answer holds no volume", nil)
		return d.confirmMissing(ctx, ref, err)
	}
	if errors.Is(err, volume.Refused) || errors.Is(err, volume.Unsupported) && !errors.Is(err, errNoVolumeDriver) {
		return d.confirmMissing(ctx, ref, reclassify(err, volume.NotFound, saysNotFound))
	}
	return volume.Volume{}, err
}

// confirmMissing asks List whether the volume is really missing, after Get
// failed with err: NotFound if Get said so itself. A List that cannot tell
// leaves it at that.
func (d *driver) confirmMissing(ctx context.Context, ref volume.Ref, err error) (volume.Volume, error) {
	volumes, positive, listErr := d.list(ctx, ref.Name)
	switch {
	case errors.Is(listErr, volume.Refused), errors.Is(listErr, volume.Unsupported):
		return volume.Volume{}, err
	case listErr != nil:
		return volume.Volume{}, listErr
	}
	for _, v := range volumes {
		if v.Name == ref.Name {
			return v, nil
		}
	}
	if positive {
		err = withKind(err, volume.NotFound)
	}
	return volume.Volume{}, err
}

// withKind returns err as another kind of error.
func withKind(err error, kind volume.Kind) error {
	var e *volume.Error
	if !errors.As(err, &e) {
		return err
	}
	changed := *e
	changed.Kind = kind
	return &changed
}

// reclassify gives a refusal a more telling kind if its text says so.
func reclassify(err error, kind volume.Kind, says func(*volume.Error) bool) error {
	var e *volume.Error
	if errors.As(err, &e) && e.Kind == volume.Refused && says(e) {
		return withKind(err, kind)
	}
	return err
}

// notFoundPhrases are plugins' words for a volume that does not exist, without
// its name. They have to be about a volume: a key file may be missing as well.
var notFoundPhrases = []string{
	"volume not found", "volume was not found", "volume could not be found", "volume cannot be found",
	"volume does not exist", "volume doesn't exist", "no such volume", "unknown volume", "no volume found",
	"could not find volume", "couldn't find volume", "cannot find volume", "can't find volume", "unable to find volume",
}

// saysNotFound recognises a refusal because the volume does not exist.
func saysNotFound(e *volume.Error) bool {
	text := withoutName(strings.ToLower(e.Message), strings.ToLower(e.Volume))
	for _, phrase := range notFoundPhrases {
		if strings.Contains(text, phrase) {
			return true
		}
	}
	return false
}

// withoutName takes a volume's name, quoted or as a word, out of a text.
func withoutName(text, name string) string {
	for _, quoted := range []string{strconv.Quote(name), "'" + name + "'", "`" + name + "`"} {
		text = strings.ReplaceAll(text, quoted, " ")
	}
	var words []string
	for _, word := range strings.Fields(text) {
		if bare := strings.Trim(word, ":,.;()"); bare != name {
			words = append(words, bare)
		}
	}
	return strings.Join(words, " ")
}

// saysAlreadyExists recognises the opposite, after Create.
func saysAlreadyExists(e *volume.Error) bool {
	text := strings.ToLower(e.Message)
	return e.Status == http.StatusConflict || strings.Contains(text, "already exist")
}
