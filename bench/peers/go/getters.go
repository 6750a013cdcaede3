package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
)

// A getter reads the string under a key.
type getter func(key string) (string, error)

// setter writes one.
type setter func(key, value string) error

var errValue = errors.New("another value was expected")

// What is read, by the one who asks: keys and their values, written once.
type filled struct {
	keys   []string
	values map[string]string
}

// fill writes `count` keys: those that redis-benchmark asks for with -r count, or random ones.
func fill(count, bytes int, random bool, set setter) (*filled, error) {
	f := &filled{values: map[string]string{}}
	if random {
		f.keys = texts(count)
	} else {
		for i := range count {
			f.keys = append(f.keys, fmt.Sprintf("key:%012d", i))
		}
	}
	for _, key := range f.keys {
		f.values[key] = text(bytes)
		if err := set(key, f.values[key]); err != nil {
			return nil, err
		}
	}
	return f, nil
}

// getLatency answers "get": GETs one after the other.
func getLatency(q Question, set setter, get getter) (Figures, error) {
	f, err := fill(q.Keys, q.Bytes, true, set)
	if err != nil {
		return nil, err
	}
	order := shuffled(f.keys, q.Calls/q.Keys+1)[:q.Calls]
	return latency(order, func(key string) error {
		value, err := get(key)
		if err == nil && value != f.values[key] {
			err = errValue
		}
		return err
	})
}

// hits answers "hit": reads of keys that this process holds, in random order.
func hits(q Question, set setter, get getter) (Figures, error) {
	f, err := fill(q.Keys, q.Bytes, true, set)
	if err != nil {
		return nil, err
	}
	for _, key := range f.keys {
		if _, err := get(key); err != nil {
			return nil, err
		}
	}
	order := shuffled(f.keys, 16)
	return loop(q.Seconds, len(order), func() error {
		for _, key := range order {
			value, err := get(key)
			if err != nil {
				return err
			}
			if len(value) != q.Bytes {
				return errValue
			}
		}
		return nil
	})
}

// randomGets answers "callers": goroutines that read random keys of many. The keys are there, with
// values of at least q.Bytes: ours have a header.
func randomGets(q Question, get getter) (Figures, error) {
	keys := make([]string, q.Keys)
	for i := range keys {
		keys[i] = fmt.Sprintf("key:%012d", i)
	}
	return callers(q.Goroutines, q.Calls, func(_, _ int) error {
		value, err := get(keys[rand.IntN(len(keys))])
		if err == nil && len(value) < q.Bytes {
			err = errValue
		}
		return err
	})
}
