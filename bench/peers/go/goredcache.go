//go:build goredcache

package main

import (
	"context"

	"github.com/dcbickfo/redcache"
)

var goredcacheClient *redcache.CacheAside

// ofGoredcache is an ask that has a client. It has no refresh ahead and its own defaults.
func ofGoredcache(answer func(c *redcache.CacheAside, q Question) (Figures, error)) ask {
	return func(address string, q Question) (Figures, error) {
		if goredcacheClient == nil {
			client, err := redcache.NewRedCacheAside(rueidisOptions(address),
				redcache.CacheAsideOption{})
			if err != nil {
				return nil, err
			}
			goredcacheClient = client
		}
		return answer(goredcacheClient, q)
	}
}

// load is a loader that does nothing: the values are there.
func load(bytes int) func(context.Context, string) (string, error) {
	value := text(bytes)
	return func(context.Context, string) (string, error) { return value, nil }
}

func loadMany(bytes int) func(context.Context, []string) (map[string]string, error) {
	value := text(bytes)
	return func(_ context.Context, keys []string) (map[string]string, error) {
		values := make(map[string]string, len(keys))
		for _, key := range keys {
			values[key] = value
		}
		return values, nil
	}
}

func getMany(c *redcache.CacheAside, q Question) func(keys []string) error {
	loader := loadMany(q.Bytes)
	return func(keys []string) error {
		values, err := c.GetMulti(context.Background(), ttl, keys, loader)
		if err == nil && len(values[keys[0]])+len(values[keys[len(keys)-1]]) != 2*q.Bytes {
			err = errValue
		}
		return err
	}
}

func init() {
	// Its own Get writes what it reads later: values have an envelope.
	asks["goredcache.hit"] = ofGoredcache(func(c *redcache.CacheAside, q Question) (Figures, error) {
		loader := load(q.Bytes)
		get := func(key string) (string, error) {
			return c.Get(context.Background(), ttl, key, loader)
		}
		return hits(q, func(key, _ string) error {
			_, err := get(key)
			return err
		}, get)
	})
	asks["goredcache.hitMany"] = ofGoredcache(
		func(c *redcache.CacheAside, q Question) (Figures, error) {
			keys, get := texts(q.Keys), getMany(c, q)
			for at := 0; at < len(keys); at += q.List {
				for range 2 { // the second one reads what the first one wrote
					if err := get(keys[at:min(at+q.List, len(keys))]); err != nil {
						return nil, err
					}
				}
			}
			all := lists(keys, q.List)
			return loop(q.Seconds, len(all)*q.List, func() error {
				for _, list := range all {
					if err := get(list); err != nil {
						return err
					}
				}
				return nil
			})
		})
	asks["goredcache.missMany"] = ofGoredcache(
		func(c *redcache.CacheAside, q Question) (Figures, error) {
			all, get := make([][]string, q.Calls), getMany(c, q)
			for i := range all {
				all[i] = texts(q.List)
			}
			next := 0
			return loop(0, q.Calls*q.List, func() error {
				for range q.Calls {
					if err := get(all[next]); err != nil {
						return err
					}
					next++
				}
				return nil
			})
		})
	asks["goredcache.miss"] = ofGoredcache(func(c *redcache.CacheAside, q Question) (Figures, error) {
		loader := load(q.Bytes)
		return latency(texts(q.Calls), func(key string) error {
			_, err := c.Get(context.Background(), ttl, key, loader)
			return err
		})
	})
	asks["goredcache.callersMiss"] = ofGoredcache(
		func(c *redcache.CacheAside, q Question) (Figures, error) {
			keys, loader := texts(q.Goroutines*q.Calls), load(q.Bytes)
			return callers(q.Goroutines, q.Calls, func(caller, call int) error {
				_, err := c.Get(context.Background(), ttl, keys[caller*q.Calls+call], loader)
				return err
			})
		})
}
