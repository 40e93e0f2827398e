package api

import (
	"slices"
	"time"

	"github.com/mesos-dvdi/dvdi/framework/core"
)

// statsJSON groups the statistics of an app's tasks; a group without tasks is
// left out.
type statsJSON struct {
	AfterScaling *statsGroupJSON `json:"startedAfterLastScaling,omitempty"`
	Latest       *statsGroupJSON `json:"withLatestConfig,omitempty"`
	Outdated     *statsGroupJSON `json:"withOutdatedConfig,omitempty"`
	Total        *statsGroupJSON `json:"totalSummary,omitempty"`
}

type statsGroupJSON struct {
	Stats taskStatsJSON `json:"stats"`
}

type taskStatsJSON struct {
	Counts   countsJSON    `json:"counts"`
	LifeTime *lifeTimeJSON `json:"lifeTime,omitempty"`
}

type countsJSON struct {
	Staged    int `json:"staged"`
	Running   int `json:"running"`
	Healthy   int `json:"healthy"`
	Unhealthy int `json:"unhealthy"`
}

type lifeTimeJSON struct {
	Average float64 `json:"averageSeconds"`
	Median  float64 `json:"medianSeconds"`
}

// statsOf groups the tasks by configuration. Times are relative to now.
func statsOf(a core.AppView) *statsJSON { return statsAt(a, time.Now()) }

func statsAt(a core.AppView, now time.Time) *statsJSON {
	scaled, changed := a.App.Version, a.App.Version
	if a.App.VersionInfo != nil {
		scaled, changed = a.App.VersionInfo.LastScalingAt, a.App.VersionInfo.LastConfigChangeAt
	}
	var afterScaling, latest, outdated []core.TaskView
	for _, t := range a.Tasks {
		if !t.StartedAt.Before(scaled.Time()) {
			afterScaling = append(afterScaling, t)
		}
		if t.Version.Compare(changed) >= 0 {
			latest = append(latest, t)
		} else {
			outdated = append(outdated, t)
		}
	}
	return &statsJSON{
		AfterScaling: groupStats(afterScaling, now),
		Latest:       groupStats(latest, now),
		Outdated:     groupStats(outdated, now),
		Total:        groupStats(a.Tasks, now),
	}
}

func groupStats(tasks []core.TaskView, now time.Time) *statsGroupJSON {
	if len(tasks) == 0 {
		return nil
	}
	g := &statsGroupJSON{}
	var lives []float64
	for _, t := range tasks {
		count(&g.Stats.Counts, t)
		if !t.StartedAt.IsZero() && active(t.State) {
			lives = append(lives, now.Sub(t.StartedAt).Seconds())
		}
	}
	g.Stats.LifeTime = lifeTimes(lives)
	return g
}

func count(c *countsJSON, t core.TaskView) {
	switch t.State {
	case "TASK_STAGING":
		c.Staged++
	case "TASK_RUNNING":
		c.Running++
	}
	if len(t.Health) == 0 {
		return
	}
	if slices.ContainsFunc(t.Health, func(h core.HealthView) bool { return !h.Alive }) {
		c.Unhealthy++
	} else {
		c.Healthy++
	}
}

func lifeTimes(lives []float64) *lifeTimeJSON {
	if len(lives) == 0 {
		return nil
	}
	slices.Sort(lives)
	sum := 0.0
	for _, l := range lives {
		sum += l
	}
	return &lifeTimeJSON{Average: sum / float64(len(lives)), Median: lives[len(lives)/2]}
}
