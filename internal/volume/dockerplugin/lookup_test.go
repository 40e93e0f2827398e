package dockerplugin

import (
	"fmt"
	"testing"

	"github.com/mesos-dvdi/dvdi/internal/volume"
	"github.com/mesos-dvdi/dvdi/internal/volume/volumetest"
)

func TestGetOfWhatIsMissing(t *testing.T) {
	for _, missing := range []volumetest.Missing{
		volumetest.MissingErr, volumetest.MissingErr200, volumetest.MissingObscure, volumetest.MissingEmpty,
		volumetest.MissingNoName, volumetest.MissingStatus, volumetest.MissingRawText,
	} {
		t.Run(string(missing), func(t *testing.T) {
			p := volumetest.Start(t, volumetest.Config{Missing: missing})
			_, err := openTest(t, p).Get(t.Context(), ref("v"))
			wantKind(t, err, volume.NotFound, `volume "v"`)
		})
		t.Run(string(missing)+" without List", func(t *testing.T) {
			p := volumetest.Start(t, volumetest.Config{Missing: missing, Lacks: []string{"List"}})
			want := volume.NotFound
			if missing == volumetest.MissingObscure {
				want = volume.Refused // nobody knows
			}
			_, err := openTest(t, p).Get(t.Context(), ref("v"))
			wantKind(t, err, want)
		})
	}
}

// lookup is how Get and List answer together, about a volume v.
type lookup struct {
	getStatus  int
	get        string
	listStatus int
	list       string
}

func TestListDecides(t *testing.T) {
	const (
		present = `{"Volumes":[null,{"Name":"u"},{"Name":"v","Mountpoint":"/mnt/v"}]}`
		absent  = `{"Volumes":[{"Name":"u"}]}`
		routed  = "404 page not found"
		outage  = `{"Err":"cannot reach the array"}`
	)
	for name, test := range map[string]struct {
		lookup
		want volume.Kind // empty: the volume
	}{
		"no Get, listed":                        {lookup{404, routed, 200, present}, ""},
		"no Get, not listed":                    {lookup{404, routed, 200, absent}, volume.NotFound},
		"no Get, null list":                     {lookup{404, routed, 200, `{"Volumes":null}`}, volume.NotFound},
		"no Get, no List":                       {lookup{404, routed, 404, routed}, volume.Unsupported},
		"no Get, List that answers anything":    {lookup{404, routed, 200, `{}`}, volume.Unsupported},
		"no Get, List fails":                    {lookup{404, routed, 500, outage}, volume.Unsupported},
		"bare 404, listed":                      {lookup{404, "", 200, present}, ""},
		"bare 404, not listed":                  {lookup{404, "not found", 200, absent}, volume.NotFound},
		"outage, listed":                        {lookup{500, outage, 200, present}, ""},
		"outage, List fails too":                {lookup{500, outage, 500, outage}, volume.Refused},
		"outage, List that answers anything":    {lookup{500, outage, 200, `{}`}, volume.Refused},
		"outage, no List":                       {lookup{500, outage, 404, routed}, volume.Refused},
		"obscure, not listed":                   {lookup{500, `{"Err":"E17"}`, 200, absent}, volume.NotFound},
		"not found, but listed":                 {lookup{500, `{"Err":"volume v not found"}`, 200, present}, ""},
		"not found, List not implemented":       {lookup{500, `{"Err":"volume v not found"}`, 500, `{"Err":"not implemented"}`}, volume.NotFound},
		"another thing is missing, no List":     {lookup{500, `{"Err":"key file not found"}`, 404, routed}, volume.Refused},
		"empty answer, listed":                  {lookup{200, `{}`, 200, present}, ""},
		"empty answer, List that answers empty": {lookup{200, `{}`, 200, `{}`}, volume.NotFound},
		"garbage":                               {lookup{200, `garbage`, 404, routed}, volume.Refused},
		"mount point only":                      {lookup{200, `{"Volume":{"Mountpoint":"/mnt/v"}}`, 404, routed}, ""},
		"odd status":                            {lookup{200, `{"Volume":{"Name":"v","Mountpoint":"/mnt/v","Status":[1],"CreatedAt":12}}`, 404, routed}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			p := volumetest.Start(t, volumetest.Config{Rules: []volumetest.Rule{
				{Method: "Get", Do: volumetest.DoAnswer, Status: test.getStatus, Body: test.get},
				{Method: "List", Do: volumetest.DoAnswer, Status: test.listStatus, Body: test.list},
			}})
			v, err := openTest(t, p).Get(t.Context(), ref("v"))
			if test.want != "" {
				wantKind(t, err, test.want)
				return
			}
			if err != nil || v.Name != "v" || v.Mountpoint != "/mnt/v" {
				t.Errorf("Get = %+v, %v", v, err)
			}
		})
	}
}

func TestOutageDuringListIsNotAMissingVolume(t *testing.T) {
	p := volumetest.Start(t, volumetest.Config{Rules: []volumetest.Rule{{Method: "List", Do: volumetest.DoDrop}}})
	_, err := openTest(t, p).Get(t.Context(), ref("v"))
	wantKind(t, err, volume.Unsettled)
}

func TestWordsForNotFound(t *testing.T) {
	for text, want := range map[string]bool{
		`volume data not found`: true, `volume "data" not found`: true, `Volume 'data' does not exist`: true,
		`volume not found`: true, `no such volume: data`: true, `Couldn't find volume data`: true,
		`error: volume "data" was not found.`: true, `unknown volume data`: true, `the volume data doesn't exist`: true,
		`key file not found`: false, `host data not found`: false, `volume data: pool not found`: false,
		`volume data cannot be mounted: no such device`: false, `data`: false, ``: false,
	} {
		e := &volume.Error{Kind: volume.Refused, Volume: "data", Message: text}
		if got := saysNotFound(e); got != want {
			t.Errorf("%q: %t", text, got)
		}
	}
}

func TestListShapes(t *testing.T) {
	for body, want := range map[string]string{
		`{}`: "[]", `{"Volumes":null}`: "[]", `{"volumes":[{"name":"a"}]}`: "[a]", `{"Volumes":[{"Name":"b"},{"Name":"a"}]}`: "[b a]",
	} {
		p := volumetest.Start(t, volumetest.Config{Rules: []volumetest.Rule{{Method: "List", Do: volumetest.DoAnswer, Body: body}}})
		volumes, err := openTest(t, p).List(t.Context())
		names := []string{}
		for _, v := range volumes {
			names = append(names, v.Name)
		}
		if err != nil || fmt.Sprint(names) != want {
			t.Errorf("%s: %v, %v", body, names, err)
		}
	}
	p := volumetest.Start(t, volumetest.Config{Lacks: []string{"List"}})
	_, err := openTest(t, p).List(t.Context())
	wantKind(t, err, volume.Unsupported)
}
