// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package informer follows the objects of one kind in the API server, and stores of each
// only the value that a Source makes of it. A Notifier turns the news of any number of
// feeds into one signal.
package informer
