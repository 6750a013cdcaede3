package main

import (
	"context"

	"github.com/redis/go-redis/v9"
)

// What of go-redis is asked: the plain client, the one that pipelines callers' commands by itself
// (its blocking face, as its defaults are), the one with its client-side cache.
var (
	goredisPlain     *redis.Client
	goredisPipelined *redis.AutoPipeliner
	goredisCached    *redis.Client
)

func openGoredis(address string) *redis.Client {
	if goredisPlain == nil {
		goredisPlain = redis.NewClient(&redis.Options{Addr: address, Protocol: 3})
	}
	return goredisPlain
}

func goredisGet(c redis.Cmdable) getter {
	return func(key string) (string, error) {
		return c.Get(context.Background(), key).Result()
	}
}

func goredisSet(c redis.Cmdable) setter {
	return func(key, value string) error {
		return c.Set(context.Background(), key, value, ttl).Err()
	}
}

func init() {
	asks["goredis.get"] = func(address string, q Question) (Figures, error) {
		client := openGoredis(address)
		return getLatency(q, goredisSet(client), goredisGet(client))
	}
	asks["goredis.hit"] = func(address string, q Question) (Figures, error) {
		if goredisCached == nil {
			goredisCached = redis.NewClient(&redis.Options{
				Addr: address, Protocol: 3,
				ClientSideCacheConfig: &redis.ClientSideCacheConfig{MaxEntries: 1000000},
			})
		}
		return hits(q, goredisSet(openGoredis(address)), goredisGet(goredisCached))
	}
	asks["goredis.callers"] = func(address string, q Question) (Figures, error) {
		if goredisPipelined == nil {
			pipelined, err := openGoredis(address).AutoPipeline()
			if err != nil {
				return nil, err
			}
			goredisPipelined = pipelined
		}
		return randomGets(q, goredisGet(goredisPipelined))
	}
}
