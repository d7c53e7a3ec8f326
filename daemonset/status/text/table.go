// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package text

import (
	"strings"
	"unicode/utf8"

	"github.com/sealane/sealane/daemonset/status/words"
)

// tone is how a cell or line feels; it becomes a colour on a terminal only.
type tone uint8

const (
	plain tone = iota
	bad
	dubious
	good
	heading
)

// paint puts the escape sequence of a tone (ECMA-48, SGR) around a text.
func (t Renderer) paint(s string, how tone) string {
	code := map[tone]string{bad: "1;31", dubious: "33", good: "32", heading: "1"}[how]
	if !t.Color || code == "" || s == "" {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

type cell struct {
	text string
	tone tone
}

func cells(texts ...string) []cell {
	row := make([]cell, len(texts))
	for i, s := range texts {
		row[i].text = s
	}
	return row
}

// table is rows under headings, each column as wide as its widest cell.
type table struct {
	head []string
	rows [][]cell
}

const gap = "  "

// render gives the table, or nothing at all if it has no row.
func (t Renderer) render(tb table) string {
	if len(tb.rows) == 0 {
		return ""
	}
	rows := make([][]cell, 0, len(tb.rows)+1)
	if tb.head != nil {
		head := cells(tb.head...)
		for i := range head {
			head[i].tone = heading
		}
		rows = append(rows, head)
	}
	rows = append(rows, tb.rows...)
	widths := widths(rows)
	var b strings.Builder
	for _, row := range rows {
		b.WriteString(t.line(row, widths))
	}
	return b.String()
}

func widths(rows [][]cell) []int {
	var out []int
	for _, row := range rows {
		for i, c := range row {
			if i == len(out) {
				out = append(out, 0)
			}
			out[i] = max(out[i], utf8.RuneCountInString(words.Printable(c.text)))
		}
	}
	return out
}

func (t Renderer) line(row []cell, widths []int) string {
	var b strings.Builder
	for i, c := range row {
		text := words.Printable(c.text)
		b.WriteString(t.paint(text, c.tone))
		if i < len(row)-1 { // nothing is padded at the end of a line
			b.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(text)) + gap)
		}
	}
	return b.String() + "\n"
}
