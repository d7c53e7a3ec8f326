// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package archtest

import (
	"io/fs"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// maxProse is how many columns a line of prose may have.
const maxProse = 120

var (
	subgraph   = regexp.MustCompile(`^\s*subgraph \w+ \["([^"]+)"\]`)
	room       = regexp.MustCompile(`\["([a-z0-9]+(?:/[a-z0-9-]+)*)(?:<br/>[^"]*)?"\]`)
	testName   = regexp.MustCompile("`((?:Test|Fuzz|Benchmark)[A-Z]\\w+)`")
	pathName   = regexp.MustCompile("`([a-z.][a-z0-9.-]*(?:/[A-Za-z0-9_.-]+)+/?)`")
	sourceName = regexp.MustCompile(`(?:^|[\s("'])((?:[a-z0-9_-]+/)*[a-z0-9_]+\.(?:go|c|h))(?:$|[\s,.;:)"'])`)
	topLevel   = regexp.MustCompile(`^(api|bpf|cmd|cni|controller|daemonset|docs|internal|keymgr|overlay|perf|policy|test|\.ci)/`)
)

// diagram reads the packages of each floor from the page's flowchart.
func diagram(page string) map[string][]string {
	floors := map[string][]string{}
	verb := ""
	for line := range strings.Lines(page) {
		if m := subgraph.FindStringSubmatch(line); m != nil {
			verb = m[1]
			floors[verb] = []string{}
		} else if strings.TrimSpace(line) == "end" {
			verb = ""
		} else if m := room.FindStringSubmatch(line); m != nil && verb != "" {
			floors[verb] = append(floors[verb], m[1])
		}
	}
	return floors
}

// TestFloorDiagram compares the picture that a reader sees with the table that is enforced.
func TestFloorDiagram(t *testing.T) {
	const page = "docs/design/architecture.md"
	drawn := diagram(documents(t)[page])
	enforced := map[string][]string{}
	for _, f := range floors {
		enforced[f.verb] = f.packages
	}
	if len(drawn) == 0 {
		t.Fatalf("%s has no diagram of the floors", page)
	}
	for _, verb := range slices.Sorted(maps.Keys(enforced)) {
		for _, pkg := range enforced[verb] {
			if !slices.Contains(drawn[verb], pkg) {
				t.Errorf("%s does not draw %s on the floor %q", page, pkg, verb)
			}
		}
	}
	for _, verb := range slices.Sorted(maps.Keys(drawn)) {
		for _, pkg := range drawn[verb] {
			if !slices.Contains(enforced[verb], pkg) {
				t.Errorf("%s draws %s on the floor %q, where it does not stand", page, pkg, verb)
			}
		}
	}
}

// everything returns the name of each file of the repository, and of each test, fuzz target and benchmark.
func everything(t *testing.T) (files, tests map[string]bool) {
	t.Helper()
	files, tests = map[string]bool{}, map[string]bool{}
	function := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Benchmark)\w+)\(`)
	err := walk(func(name string) error {
		for dir := name; dir != "."; dir = path.Dir(dir) {
			files[dir] = true
		}
		if !strings.HasSuffix(name, "_test.go") {
			return nil
		}
		src, err := fs.ReadFile(root(), name)
		for _, m := range firstGroups(function, string(src)) {
			tests[m] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files, tests
}

// TestDocumentedNames wants the tests, files and folders that a document names to be there.
func TestDocumentedNames(t *testing.T) {
	files, tests := everything(t)
	found := 0
	for page, text := range documents(t) {
		if strings.HasPrefix(page, "perf/results/") || page == "CHANGELOG.md" {
			continue // of their time
		}
		for _, name := range firstGroups(testName, text) {
			found++
			if !tests[name] {
				t.Errorf("%s names %s, and there is no such test", page, name)
			}
		}
		for _, name := range firstGroups(pathName, text) {
			name = strings.TrimSuffix(name, "/")
			if topLevel.MatchString(name) && !files[name] && !files[path.Join(path.Dir(page), name)] {
				t.Errorf("%s names %s, which is not there", page, name)
			}
		}
	}
	if found == 0 {
		t.Error("no document names a test, which cannot be right")
	}
}

// missingSources returns the source files that a comment names and that are nowhere. A name with folders that are not
// ours is of another project, such as the kernel's.
func missingSources(comment string, files map[string]bool) []string {
	var missing []string
	for _, name := range firstGroups(sourceName, comment) {
		if !files[name] && (topLevel.MatchString(name) || !strings.Contains(name, "/")) {
			missing = append(missing, name)
		}
	}
	return missing
}

// TestCommentedFiles wants the source files that a comment sends its reader to to be there.
func TestCommentedFiles(t *testing.T) {
	files, _ := everything(t)
	for file := range maps.Clone(files) {
		files[path.Base(file)] = true
	}
	for _, s := range sources(t, written) {
		for _, c := range s.file.Comments {
			for _, name := range missingSources(c.Text(), files) {
				t.Errorf("%s: the comment names %s, which is not there", s.pos(c), name)
			}
		}
	}
}

// tooLong returns the numbers of the lines of prose that are too long. Tables, code and what cannot be broken are none.
func tooLong(text string) []int {
	var found []int
	fenced, n := false, 0
	for line := range strings.Lines(text) {
		n++
		line = strings.TrimRight(line, "\n")
		switch {
		case strings.HasPrefix(strings.TrimSpace(line), "```"):
			fenced = !fenced
		case fenced, strings.HasPrefix(line, "|"), strings.HasPrefix(line, "    "), !strings.Contains(strings.TrimSpace(line), " "):
		case utf8.RuneCountInString(line) > maxProse:
			found = append(found, n)
		}
	}
	return found
}

// TestProseWraps keeps changes of documents readable as differences.
func TestProseWraps(t *testing.T) {
	for page, text := range documents(t) {
		if strings.HasPrefix(page, "perf/results/") {
			continue // written by a program
		}
		for _, n := range tooLong(text) {
			t.Errorf("%s:%d: a line of prose has more than %d columns", page, n, maxProse)
		}
	}
}

func TestPageRules(t *testing.T) {
	floors := diagram("flowchart BT\n  subgraph a [\"know\"]\n    x[\"cni/ipam<br/>leases\"]\n    y[\"keymgr\"]\n  end\n  z[\"cmd/sealane\"]\n")
	if len(floors) != 1 || !slices.Equal(floors["know"], []string{"cni/ipam", "keymgr"}) {
		t.Errorf("read %v", floors)
	}
	long := strings.Repeat("word ", 30)
	if got := tooLong("short\n" + long + "\n| " + long + "\n```\n" + long + "\n```\n    " + long + "\n" + strings.Repeat("x", 200) + "\n"); !slices.Equal(got, []int{2}) {
		t.Errorf("lines %v are too long, want line 2", got)
	}
	there := map[string]bool{"keymgr/verify.go": true}
	if got := missingSources("See identity.go, linux/bpf.h and (keymgr/verify.go).", there); !slices.Equal(got, []string{"identity.go"}) {
		t.Errorf("missing %v, want identity.go", got)
	}
}
