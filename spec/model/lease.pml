/*
 * lease - remember()'s protocol on one key, in every order of events.
 *
 * What:    callers, two to a client, share their client's flight (lease.c, publish.c of
 *          core/engine). Redis runs each script as one step (script.c). Somebody else changes the
 *          source of the values and then deletes or overwrites the key, or flushes. Leases and
 *          values expire, connections break, a client dies, callers leave.
 * Shows:   no stale set: what is stored was loaded after the last invalidation. Nobody is handed a
 *          value that was replaced before its call began, or the error of a load that had ended by
 *          then, or a placeholder. One loader at a time per lease. Every caller ends: where a run
 *          stops with one that has not, there is an invalid end state; and no run goes on for ever
 *          (with -DNP, as no label here says progress, any cycle is an error).
 * Not:     time is an order and no more. A lease may expire under its holder at any moment, which
 *          covers every late heartbeat; that a dead holder is replaced in time, it can not tell. No
 *          put, no batch, no load without Redis, no failover that loses writes. The asking SET
 *          (asks_with_set) is the acquire script without tracking, and left out.
 *          In one point the engine is less strict than the model: who joins those that wait for a
 *          load between its failure and the push that tells them is told its error, too. To tell
 *          him from those who came while it ran would take a convoy of failing loads.
 * Bounds:  each kind of event has a budget, below. Within them the search is complete.
 * Mutants: by -D, each a mistake that must be found: BLIND_SET, ANY_LEASE, TOKEN_PER_CLIENT,
 *          SEPARATE_LOCK, REFRESH_ANY, COVER_ABSENT, NO_TIMER, SAME_TOKEN, SHARE_ALL,
 *          OLD_ERROR, HAND_ANY.
 */

#include "lease_redis.pml"

/* ---- handing out ----------------------------------------------------------------------------- */

inline hand(who, k, v) {
    assert(k == VALUE);      /* never a placeholder */
    assert(v >= since[who])  /* never what was replaced before the call began */
}

inline serve(set) {
    done = done | (set);
    waiting = waiting & ~(set);
    in_cut = in_cut & ~(set)
}

/* rc_flight_give: to those who had joined when the request was sent. */
inline give(c, v) {
    if :: IS(in_cut, c) -> hand(c, VALUE, v) :: else fi;
    if :: IS(in_cut, c + CLIENTS) -> hand(c + CLIENTS, VALUE, v) :: else fi;
    serve(in_cut & MEMBERS(c))
}

inline give_failure(c, t, set) {
    assert(!IS(set, c) || old_error[c] != t); /* never an error of before the call */
    assert(!IS(set, c + CLIENTS) || old_error[c + CLIENTS] != t);
    serve((set) & MEMBERS(c))
}

/* ---- the flight ------------------------------------------------------------------------------ */

inline cut(c) { in_cut = in_cut | (waiting & MEMBERS(c)) }

/* rc_flight_promote. */
inline promote(c, t) {
    who = (IS(waiting, c) -> c : c + CLIENTS);
    assert(!RUNS(t)); /* one loader per lease */
    held[who] = t;
    leader[c] = who + 1;
    waiting = waiting & ~BIT(who);
    in_cut = in_cut & ~BIT(who);
    who = 0
}

inline detach(c) { leader[c] = 0; asked[c] = 0; ending = ending & ~BIT(c) }

inline use_token(c) {
#ifndef TOKEN_PER_CLIENT
    token[c] = token[c] + CLIENTS
#else
    skip
#endif
}

/* T breaks: its pushes are lost, and Redis forgets what it had to tell. */
inline lose_t(c) {
    losses--;
    tracked = tracked & ~BIT(c);
    push = push & ~BIT(c)
}

/* rc_flight_settle: a flight nobody waits in is gone, and what it knew. */
inline settle(c) {
    if
    :: !(waiting & MEMBERS(c)) -> waited[c] = 0; saw_lease = saw_lease & ~MEMBERS(c)
    :: else
    fi
}

#ifdef SAME_TOKEN
#define ASK_AGAIN(c) goto sent
#else
#define ASK_AGAIN(c) asked[c] = 0; goto end
#endif

proctype Flight(byte c) {
    mtype answer;
    byte v, who;
    {
    skip;
end:
    atomic {
        (waiting & MEMBERS(c)) ->
        asked[c] = token[c];
        cut(c)
    };
sent:
    if
    :: atomic { run_acquire(c, asked[c]) }
    :: atomic { losses > 0 -> lose_t(c); late = asked[c]; use_token(c); ASK_AGAIN(c) }
    fi;
    if /* the answer travels */
    :: atomic { losses > 0 -> lose_t(c); answer = 0; v = 0; ASK_AGAIN(c) }
    :: atomic { answer == FOUND -> give(c, v); answer = 0; v = 0; asked[c] = 0; settle(c);
                goto end }
    :: atomic { answer == FAILED ->
#ifdef OLD_ERROR
        give_failure(c, waited[c], in_cut);
#else
        give_failure(c, waited[c], in_cut & saw_lease);
#endif
        saw_lease = saw_lease & ~MEMBERS(c);
        waited[c] = 0; answer = 0; asked[c] = 0; goto end }
    :: atomic { answer == BUSY ->
        waited[c] = v; answer = 0; v = 0; asked[c] = 0;
        saw_lease = (saw_lease & ~MEMBERS(c)) | (in_cut & MEMBERS(c)) };
        goto end_wait
    :: atomic { answer == ACQUIRED && !(waiting & MEMBERS(c)) -> /* all have left */
        release(asked[c]); answer = 0; asked[c] = 0; settle(c); goto end }
    :: atomic { answer == ACQUIRED && (waiting & MEMBERS(c)) ->
        promote(c, asked[c]); answer = 0 }
    fi;

    if /* loading */
    :: leader[c] == 0
    :: atomic { leader[c] != 0 && !IS(ending, c) && !STANDS(asked[c]) -> /* says a heartbeat */
        detach(c) }
    :: atomic { leader[c] != 0 && !IS(ending, c) && leaves > 0 -> /* beyond maxLoadTime */
        leaves--; release(asked[c]); detach(c) }
    fi;
    atomic { settle(c); goto end };

end_wait:
    if
    :: atomic { IS(push, c) -> push = push & ~BIT(c) }
    :: atomic { losses > 0 -> lose_t(c) } /* nobody would tell: rc_track_fire_all */
#ifndef NO_TIMER
    :: !STANDS(waited[c]) /* the timer looks again; sooner, it would only find the same lease */
#endif
    fi;
    atomic { settle(c); goto end }
    } unless { IS(dead, c) }
}

/* ---- callers --------------------------------------------------------------------------------- */

inline die(c) {
    crashes--;
    tracked = tracked & ~BIT(c);
    push = push & ~BIT(c);
    waiting = waiting & ~MEMBERS(c);
    in_cut = in_cut & ~MEMBERS(c);
    held[c] = 0; held[c + CLIENTS] = 0;
    detach(c);
    dead = dead | BIT(c)
}

proctype Caller(byte me; byte c) {
    mtype answer, what;
    byte t, v, seen, newer, who;
    {
    atomic { /* the call begins, with a GET */
        since[me] = newest;
        old_error[me] = (kind == MARK -> id : 0);
        if
        :: IS_VALUE -> hand(me, kind, value);
            if
            :: goto over
            :: refreshes > 0 && id != 0 -> refreshes--; seen = id; goto refresh /* soft-expired */
            fi
        :: else
        fi
    };
    waiting = waiting | BIT(me);
    if
    :: IS(done, me) -> goto over
    :: atomic { held[me] != 0 -> t = held[me]; v = truth } /* the loader */
    :: atomic { leaves > 0 && IS(waiting, me) ->
        leaves--; waiting = waiting & ~BIT(me); in_cut = in_cut & ~BIT(me); goto over }
    fi;

    atomic {
        if
        :: what = VALUE
        :: what = MARK
        :: crashes > 0 -> die(c); goto over
        :: what = ABSENT /* it says nothing: the next one leads, or the lease is given back */
        fi;
        held[me] = 0;
        if
        :: leader[c] == me + 1 && what == ABSENT && (waiting & MEMBERS(c)) -> promote(c, t)
        :: leader[c] == me + 1 && what == ABSENT && !(waiting & MEMBERS(c)) -> release(t); detach(c)
        :: leader[c] == me + 1 && what != ABSENT -> /* rc_leases_end */
            ending = ending | BIT(c);
            cut(c);
            if :: what == MARK -> give_failure(c, t, in_cut) :: else fi
        :: leader[c] != me + 1 && what == ABSENT -> release(t)
        :: else
        fi;
        if :: what == ABSENT -> goto over :: else fi
    };
publish:
    atomic { run_publish(what, t, v) };
    if
    /* Nobody knows what became of it. */
    :: atomic { losses > 0 -> losses--; newer = 0; goto publish }
    :: atomic {
        if
        :: leader[c] == me + 1 ->
#ifdef SHARE_ALL
            cut(c);
#endif
            if
            :: what == VALUE && answer == STORED -> give(c, v)
            :: what == VALUE && answer == NEWER -> give(c, newer)
            :: else
            fi;
            detach(c)
        :: else
        fi;
        if
        :: what == VALUE && answer == NEWER -> hand(me, VALUE, newer)
        :: what == VALUE && answer != NEWER -> hand(me, VALUE, v)
        :: else
        fi;
        goto over }
    fi;

refresh:
    atomic { /* RC_SCRIPT_REFRESH; where it is refused, the stale value is served */
        if
        :: kind == VALUE && id == seen && helper == 0 ->
            t = token[c]; use_token(c);
            assert(!RUNS(t));
            helper = t; held[me] = t
        :: else -> goto over
        fi
    };
    v = truth;
    if
    :: atomic { crashes > 0 -> die(c); goto over }
    :: atomic { cover(t, seen) } /* from here on it is a lease as any other */
    :: true
    fi;
publish_refresh:
    atomic { /* RC_SCRIPT_REFRESH_PUBLISH */
        held[me] = 0;
        if :: helper == t -> helper = 0 :: else fi;
        if
#ifdef REFRESH_ANY
        :: kind == VALUE -> store(VALUE, t, v)
#else
        :: kind == VALUE && id == seen -> store(VALUE, t, v)
#endif
        :: STANDS(t) -> store(VALUE, t, v)
        :: else
        fi
    };
    if
    :: atomic { losses > 0 -> losses--; goto publish_refresh }
    :: true
    fi;

over:
    skip
    } unless { IS(dead, c) };
    atomic { calls--; answer = 0; what = 0; t = 0; v = 0; seen = 0; newer = 0;
        done = done & ~BIT(me); since[me] = 0; old_error[me] = 0 }
}

init {
    byte n;
    atomic {
        if
        :: true
        :: kind = VALUE; id = FIRST_NONCE
        fi;
        for (n : 0 .. CLIENTS - 1) { token[n] = n + 1; run Flight(n) }
        for (n : 0 .. CALLERS - 1) { run Caller(n, CLIENT(n)) }
        n = 0;
        run Others();
        run Time()
    }
}
