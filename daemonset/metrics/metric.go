// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package metrics

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sealane/sealane/daemonset/status"
)

// metric is one name, what it means, and how its samples come from a report.
type metric struct {
	name    string
	help    string
	labels  []string
	counter bool
	samples func(status.Node) []sample
	// histogram takes the place of samples.
	histogram func(status.Node) status.Histogram
}

// sample is a value with the values of the metric's labels.
type sample struct {
	value  float64
	labels []string
}

func (m metric) desc() *prometheus.Desc {
	return prometheus.NewDesc(m.name, m.help, m.labels, nil)
}

func (m metric) kind() prometheus.ValueType {
	if m.counter {
		return prometheus.CounterValue
	}
	return prometheus.GaugeValue
}

// send sends the samples to Prometheus. Prometheus refuses a whole scrape if two
// samples are alike or a label is not UTF-8, so send lets neither through.
func (m metric) send(n status.Node, out chan<- prometheus.Metric) {
	if m.histogram != nil {
		out <- constant(m.desc(), m.histogram(n))
		return
	}
	desc, seen := m.desc(), map[string]bool{}
	for _, s := range m.samples(n) {
		for i := range s.labels {
			s.labels[i] = strings.ToValidUTF8(s.labels[i], "?")
		}
		key := strings.Join(s.labels, "\x00")
		if !seen[key] {
			out <- prometheus.MustNewConstMetric(desc, m.kind(), s.value, s.labels...)
		}
		seen[key] = true
	}
}

// constant makes a sample of a histogram. Prometheus counts the values of all lower
// buckets in each bucket, too.
func constant(desc *prometheus.Desc, h status.Histogram) prometheus.Metric {
	below, count := map[float64]uint64{}, uint64(0)
	for i, bound := range status.DelayBounds() {
		if i < len(h.Counts) {
			count += h.Counts[i]
		}
		below[bound] = count
	}
	if above := len(below); above < len(h.Counts) {
		count += h.Counts[above]
	}
	return prometheus.MustNewConstHistogram(desc, count, h.Sum, below)
}

// gauge is a metric of one value without labels.
func gauge(name, help string, value func(status.Node) float64) metric {
	return metric{name: name, help: help, samples: func(n status.Node) []sample { return []sample{{value: value(n)}} }}
}

// each makes the samples of a metric from a list in the report; nil: no sample.
func each[T any](list func(status.Node) []T, sampleOf func(status.Node, T) *sample) func(status.Node) []sample {
	return func(n status.Node) []sample {
		var all []sample
		for _, item := range list(n) {
			if s := sampleOf(n, item); s != nil {
				all = append(all, *s)
			}
		}
		return all
	}
}

func labelled(value float64, labels ...string) *sample { return &sample{value, labels} }

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
