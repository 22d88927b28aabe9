package manifests_test

import (
	"reflect"
	"strings"
	"testing"

	"github.com/tulle-mesh/tulle/manifests"
)

func defaults(t *testing.T) manifests.Values {
	t.Helper()
	v, err := manifests.Default()
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func set(t *testing.T, assignments ...string) manifests.Values {
	t.Helper()
	v := defaults(t)
	for _, a := range assignments {
		over, err := manifests.Set(a)
		if err != nil {
			t.Fatal(err)
		}
		v = manifests.Merge(v, over)
	}
	return v
}

func TestAssignments(t *testing.T) {
	for text, want := range map[string]manifests.Values{
		"a.b=3":         {"a": map[string]any{"b": int64(3)}},
		"a=007":         {"a": "007"},
		"a=y":           {"a": "y"},
		"a=1.10":        {"a": "1.10"},
		"a=true":        {"a": true},
		"a=":            {"a": ""},
		"a=null":        {"a": nil},
		"a=x=y":         {"a": "x=y"},
		"a=[x, z]":      {"a": []any{"x", "z"}},
		`n.k\.io/os=l`:  {"n": map[string]any{"k.io/os": "l"}},
		"a={b: [1, 2]}": {"a": map[string]any{"b": []any{float64(1), float64(2)}}},
	} {
		got, err := manifests.Set(text)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %#v, %v", text, got, err)
		}
	}
	for _, text := range []string{"a", "=1", "a..b=1", "a={", ".a=1"} {
		if got, err := manifests.Set(text); err == nil {
			t.Errorf("%s: %v", text, got)
		}
	}
}

func TestMergeChangesNeither(t *testing.T) {
	base := manifests.Values{"a": map[string]any{"x": 1, "y": 2}, "b": []any{1}, "c": 1}
	over := manifests.Values{"a": map[string]any{"y": 3}, "b": []any{}, "c": nil}
	got := manifests.Merge(base, over)
	if want := (manifests.Values{"a": map[string]any{"x": 1, "y": 3}, "b": []any{}}); !reflect.DeepEqual(got, want) {
		t.Errorf("%v", got)
	}
	if base["c"] != 1 || base["a"].(map[string]any)["y"] != 2 || len(over) != 3 {
		t.Errorf("%v %v", base, over)
	}
}

func TestMistakesInValuesAreNamed(t *testing.T) {
	for assignment, want := range map[string]string{
		"istiod.replica=3":                            "istiod.replica: there is no such value; did you mean istiod.replicas?",
		"ztunel.drainSeconds=3":                       "ztunel: there is no such value; did you mean ztunnel?",
		"quite=other":                                 "quite: there is no such value",
		"carrier=h4":                                  `carrier: "h4" is not one of auto, h2, h3`,
		"logging.level=loud":                          `logging.level: "loud" does not match`,
		"logging.level=xds:loud":                      `logging.level: "xds:loud" does not match`,
		"istiod.replicas=none":                        `istiod.replicas: "none" is not of type integer`,
		"istiod.replicas=0":                           "istiod.replicas: 0 is less than 1",
		"istiod.replicas=[1.5]":                       "istiod.replicas: [1.5] is not of type integer",
		"hub=null":                                    "hub: missing",
		"cni.binDir=opt":                              `cni.binDir: "opt" does not match`,
		"ztunnel.tolerations=[{operator: Exist}]":     `ztunnel.tolerations[0].operator: "Exist" is not one of Exists, Equal`,
		"agent.resources.requests.cpu=[1]":            "agent.resources.requests.cpu: [1] is not of type string or integer or number",
		`ztunnel.nodeSelector.kubernetes\.io/os=true`: `ztunnel.nodeSelector.kubernetes\.io/os: true is not of type string`,
		"istiod.extraArgs=[rm]":                       `istiod.extraArgs[0]: "rm" does not match ^--[a-z]`,
	} {
		_, err := manifests.Render(manifests.Release{}, set(t, assignment))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", assignment, err, want)
		}
	}
	if err := manifests.Validate(set(t, "istiod.replica=3", "carrier=h4")); err == nil || strings.Count(err.Error(), "\n") != 1 {
		t.Errorf("two mistakes: %v", err)
	}
}

func TestValuesFilesAreReadStrictly(t *testing.T) {
	if v, err := manifests.ParseValues(nil); err != nil || len(v) != 0 {
		t.Errorf("empty: %v, %v", v, err)
	}
	for _, text := range []string{"a: 1\na: 2\n", "- a\n", "a: {"} {
		if v, err := manifests.ParseValues([]byte(text)); err == nil {
			t.Errorf("%q: %v", text, v)
		}
	}
}

func FuzzSet(f *testing.F) {
	f.Add("istiod.replicas=3")
	f.Add(`a.b\.c={x: [1]}`)
	f.Fuzz(func(t *testing.T, text string) {
		v, err := manifests.Set(text)
		if err == nil && len(v) != 1 {
			t.Errorf("%q gives %v", text, v)
		}
	})
}
