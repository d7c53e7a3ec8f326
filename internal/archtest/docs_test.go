// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package archtest

import (
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	target   = regexp.MustCompile(`(?m)^([a-z][a-z0-9-]*):([^=]|$)`)
	helped   = regexp.MustCompile(`(?m)^([a-z][a-z0-9-]*):[^=\n]*## \S`)
	script   = regexp.MustCompile(`(?m)^\t((?:[a-z.][a-z0-9.]*/)+[a-z-]+)`)
	makeCall = regexp.MustCompile(`^(?:\$ )?(?:[A-Z_0-9]+=\S+ )*(?:sudo )?make((?: [^#|;&>]+)?)`)
	link     = regexp.MustCompile(`\]\(([^)#\s]+)(?:#[^)\s]*)?\)`)
)

func makefile(t *testing.T) string {
	t.Helper()
	text, err := fs.ReadFile(root(), "Makefile")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func firstGroups(re *regexp.Regexp, text string) []string {
	var groups []string
	for _, m := range re.FindAllStringSubmatch(text, -1) {
		groups = append(groups, m[1])
	}
	return groups
}

func TestMakefile(t *testing.T) {
	text := makefile(t)
	if n := lines([]byte(text)); n > maxMakefileSize {
		t.Errorf("the Makefile has %d lines, more than %d; move work into scripts", n, maxMakefileSize)
	}
	targets, help := firstGroups(target, text), firstGroups(helped, text)
	if len(targets) == 0 {
		t.Fatal("found no target in the Makefile")
	}
	phony := strings.Fields(regexp.MustCompile(`(?m)^\.PHONY: .*$`).FindString(text))
	for _, name := range targets {
		if !slices.Contains(help, name) {
			t.Errorf("make %s has no ## help", name)
		}
		if !slices.Contains(phony, name) {
			t.Errorf("make %s is not declared .PHONY", name)
		}
	}
}

// TestMakefileScripts wants every script that a target runs to be there and to be executable.
func TestMakefileScripts(t *testing.T) {
	for _, name := range firstGroups(script, makefile(t)) {
		info, err := os.Stat(filepath.Join("..", "..", name))
		if err != nil {
			t.Errorf("the Makefile runs %s: %v", name, err)
		} else if info.Mode()&0o111 == 0 {
			t.Errorf("the Makefile runs %s, which is not executable", name)
		}
	}
}

// documents returns the text of every Markdown page by name.
func documents(t *testing.T) map[string]string {
	t.Helper()
	pages := map[string]string{}
	err := walk(func(name string) error {
		if path.Ext(name) != ".md" {
			return nil
		}
		text, err := fs.ReadFile(root(), name)
		pages[name] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if pages["README.md"] == "" {
		t.Fatal("there is no README.md")
	}
	return pages
}

// TestDocumentedCommands wants each make command in a document's code block to be a target.
func TestDocumentedCommands(t *testing.T) {
	targets := firstGroups(target, makefile(t))
	found := 0
	for name, text := range documents(t) {
		for _, command := range commands(text) {
			m := makeCall.FindStringSubmatch(command)
			if m == nil {
				continue
			}
			found++
			for _, word := range strings.Fields(m[1]) {
				if !strings.ContainsAny(word, "=-\"'") && !slices.Contains(targets, word) || strings.HasPrefix(word, "-") {
					t.Errorf("%s: %q: the Makefile has no target %s", name, command, word)
				}
			}
		}
	}
	if found == 0 {
		t.Error("no document shows a make command, which cannot be right")
	}
}

// commands returns the lines of the shell blocks of a Markdown text.
func commands(text string) []string {
	var found []string
	shell, fenced := false, false
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if lang, fence := strings.CutPrefix(line, "```"); fence {
			fenced = !fenced
			shell = fenced && slices.Contains([]string{"sh", "bash", "console", "shell"}, lang)
		} else if shell {
			found = append(found, line)
		}
	}
	return found
}

// TestLinks wants every relative link in a document to lead somewhere.
func TestLinks(t *testing.T) {
	for name, text := range documents(t) {
		for _, to := range firstGroups(link, text) {
			if strings.Contains(to, "://") || strings.HasPrefix(to, "mailto:") {
				continue
			}
			if _, err := fs.Stat(root(), path.Join(path.Dir(name), to)); err != nil {
				t.Errorf("%s links to %s: %v", name, to, err)
			}
		}
	}
}
