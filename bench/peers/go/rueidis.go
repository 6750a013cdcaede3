package main

import (
	"context"
	"time"

	"github.com/redis/rueidis"
	"github.com/redis/rueidis/rueidislock"
)

const ttl = 10 * time.Minute

func rueidisOptions(address string) rueidis.ClientOption {
	return rueidis.ClientOption{InitAddress: []string{address}}
}

var rueidisClient rueidis.Client

func openRueidis(address string) (rueidis.Client, error) {
	if rueidisClient == nil {
		client, err := rueidis.NewClient(rueidisOptions(address))
		if err != nil {
			return nil, err
		}
		rueidisClient = client
	}
	return rueidisClient, nil
}

func rueidisSet(c rueidis.Client) setter {
	return func(key, value string) error {
		return c.Do(context.Background(), c.B().Set().Key(key).Value(value).Ex(ttl).Build()).Error()
	}
}

func rueidisGet(c rueidis.Client) getter {
	return func(key string) (string, error) {
		return c.Do(context.Background(), c.B().Get().Key(key).Build()).ToString()
	}
}

func rueidisDoCache(c rueidis.Client) getter {
	return func(key string) (string, error) {
		return c.DoCache(context.Background(), c.B().Get().Key(key).Cache(), ttl).ToString()
	}
}

// ofRueidis is an ask that has a client.
func ofRueidis(answer func(c rueidis.Client, q Question) (Figures, error)) ask {
	return func(address string, q Question) (Figures, error) {
		client, err := openRueidis(address)
		if err != nil {
			return nil, err
		}
		return answer(client, q)
	}
}

var locker rueidislock.Locker

// locks answers "lock": lock and unlock, one name after the other. One key is the whole of a
// majority: there is one server.
func locks(address string, q Question) (Figures, error) {
	if locker == nil {
		opened, err := rueidislock.NewLocker(rueidislock.LockerOption{
			ClientOption: rueidisOptions(address), KeyMajority: 1, NoLoopTracking: true,
		})
		if err != nil {
			return nil, err
		}
		locker = opened
	}
	return latency(texts(q.Calls), func(name string) error {
		_, unlock, err := locker.WithContext(context.Background(), name)
		if err == nil {
			unlock()
		}
		return err
	})
}

func init() {
	asks["rueidis.get"] = ofRueidis(func(c rueidis.Client, q Question) (Figures, error) {
		return getLatency(q, rueidisSet(c), rueidisGet(c))
	})
	asks["rueidis.hit"] = ofRueidis(func(c rueidis.Client, q Question) (Figures, error) {
		return hits(q, rueidisSet(c), rueidisDoCache(c))
	})
	asks["rueidis.callers"] = ofRueidis(func(c rueidis.Client, q Question) (Figures, error) {
		return randomGets(q, rueidisGet(c))
	})
	asks["rueidis.lock"] = locks
}
