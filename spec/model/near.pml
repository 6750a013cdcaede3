/*
 * near - the near cache's copy of one key, in every order of events.
 *
 * What:    workers of one machine share a region (core/near); each has its own engine and tracked
 *          connection T, whose requests, answers and pushes keep their order (core/engine: fetch.c,
 *          horizon.c, revalidate.c, engine.c). Readers look into the region, then fetch over T or
 *          join a fetch, or read past it over W where T is down. Own writes go over W. Others
 *          write, delete, put placeholders there, flush; the value expires, and Redis tells too
 *          late; connections break, and are found broken later.
 * Shows:   what is handed out, from wherever, is not older than what anybody of this machine was
 *          handed or had acknowledged when the call began: read-your-writes, and nobody sees the
 *          key go back. What the region serves was current at its owner's horizon, so that after a
 *          PONG nothing is older than the PING; was read or confirmed over the connection that
 *          stands; and is a value. Every call ends.
 * Not:     one step is one call of core/near, which has mutexes, versions and fences for that (the
 *          C tests race those). Time is an order: that the horizon is moved often enough, and
 *          `now - asof <= maxStale`, is not seen. No eviction of others, no L0, no leases: a
 *          placeholder is only something that is no value.
 * Counts:  the count of writes is only ever compared with what a fetch saw at its start, so there
 *          is a set of fetches that have seen it move; an entry's stamp likewise is old or not.
 * Bounds:  each kind of event has a budget, below. Within them the search is complete.
 * Mutants: by -D, each a mistake that must be found: NO_DOOM, NO_ACK_DROP, NO_FLUSH, NO_WRITES,
 *          FILL_UNCOUNTED, DOOM_UNCOUNTED, REFUSAL_UNCOUNTED, JOIN_ANY, PAST_KEPT, CONFIRM_ANY,
 *          NO_DEADLINE, KEEP_ANY.
 */

#include "near_region.pml"

/* ---- handing out ----------------------------------------------------------------------------- */

inline hand(r, v) {
    assert(v >= since[r]); /* never older than what was known when the call began */
    raise(known, v);
    on[r] = 0; since[r] = 0;
    calls--
}

inline deliver(f) {
    for (i : 0 .. READERS - 1) {
        if
        :: on[i] == f + 1 -> hand(i, got[f])
        :: else
        fi
    }
    i = 0
}

/* rc_near_lookup */
inline serve(r) {
    assert(STANDS(copy));         /* never a placeholder */
    assert(!is_past);             /* nothing of an earlier connection */
    assert(copy >= asof[owner]);  /* it was current at the horizon */
    hand(r, copy)
}

/* ---- a worker's engine ----------------------------------------------------------------------- */

inline ask(link, f) {
    sent[f] = version;
    line[link]!GET(f); line[link]!PTTL(f)
}

inline shut(f) { open = open & ~BIT(f) }

/* A new epoch: begin_epoch. */
inline renew(w) {
    if
    :: copy != 0 && owner == w ->
#ifndef NO_FLUSH
        is_old = true;
#endif
        is_past = true
    :: else
    fi
}

inline revalidate(w) {
    if
    :: copy != 0 && owner == w && is_old && !IS(running, CHECK(w)) ->
        running = running | BIT(CHECK(w));
        ask(w, CHECK(w))
    :: else
    fi
}

inline finish(f) {
    running = running & ~BIT(f);
    doomed = doomed & ~BIT(f);
    moved = moved & ~BIT(f);
    got[f] = 0; sent[f] = 0;
    shut(f)
}

proctype Engine(byte w) {
    byte f, i;
end:
    do
    :: atomic { calls > 0 && stream[w]?[GOT(_)] -> stream[w]?GOT(f) -> half[w] = f + 1; f = 0 }
    :: atomic { calls > 0 && stream[w]?[LIFE(_)] -> stream[w]?LIFE(f) ->
        half[w] = 0;
        raise(asof[w], sent[f]);
        if
        :: f < 2 * WORKERS -> keep(w, f); deliver(f)
        :: f >= 2 * WORKERS && !IS(void_check, w) -> confirm(w, f)
        :: else -> void_check = void_check & ~BIT(w)
        fi;
        finish(f);
        f = 0 }
    :: atomic { calls > 0 && stream[w]?[PONG(_)] -> stream[w]?PONG(f) -> raise(asof[w], f); f = 0 }
    :: atomic { calls > 0 && stream[w]?[PUSH(_)] -> stream[w]?PUSH(f) ->
#ifndef NO_DOOM
        if
        :: half[w] != 0 -> doomed = doomed | BIT(half[w] - 1); shut(half[w] - 1)
        :: else
        fi;
#endif
        take_out() }
    :: atomic { calls > 0 && stream[w]?[FLUSHED(_)] -> stream[w]?FLUSHED(f) ->
        if
        :: half[w] != 0 -> doomed = doomed | BIT(half[w] - 1); shut(half[w] - 1)
        :: else
        fi;
        if
        :: IS(running, CHECK(w)) -> void_check = void_check | BIT(w)
        :: else
        fi;
        renew(w);
        revalidate(w) }
    :: atomic { calls > 0 && pings > 0 && IS(ready, w) -> pings--; line[w]!PING(version) }
    :: atomic { calls > 0 && IS(ready, w) && !IS(up, w) -> /* link.c: go_down */
        ready = ready & ~BIT(w);
        do
        :: nempty(line[w]) -> line[w]?_(_)
        :: nempty(stream[w]) -> stream[w]?_(_)
        :: empty(line[w]) && empty(stream[w]) -> break
        od;
        half[w] = 0;
        if :: IS(running, CHECK(w)) -> finish(CHECK(w)) :: else fi;
        void_check = void_check & ~BIT(w);
        renew(w) }
    /* Connected again: what was not answered is asked again. */
    :: atomic { calls > 0 && !IS(ready, w) ->
        ready = ready | BIT(w);
        up = up | BIT(w);
        if :: IS(running, w) -> ask(w, w) :: else fi;
        if :: IS(running, w + WORKERS) -> ask(w, w + WORKERS) :: else fi;
        revalidate(w) }
    od
}

/* ---- readers and writers of the machine ------------------------------------------------------ */

#ifdef JOIN_ANY
#define MAY_JOIN(f) IS(open, f)
#else
#define MAY_JOIN(f) (IS(open, f) && !IS(moved, f))
#endif
#ifdef NO_DEADLINE
#define IS_OVER false
#else
#define IS_OVER (copy == expired)
#endif

proctype Reader(byte r; byte w) {
    byte v;
    do
    :: atomic { reads > 0 ->
        reads--;
        since[r] = known;
        if
        :: copy != 0 && !is_old && !IS_OVER -> serve(r); goto next
        :: true /* not there, or its horizon is too far back for this call */
        fi };
        if
        :: atomic { IS(ready, w) -> /* rc_fetch_start */
            if
            :: MAY_JOIN(PEER(r)) -> on[r] = PEER(r) + 1
            :: !MAY_JOIN(PEER(r)) ->
                on[r] = r + 1;
                running = running | BIT(r);
                open = open | BIT(r);
                moved = moved & ~BIT(r);
                ask(w, r)
            fi };
            on[r] == 0
        :: atomic { !IS(ready, w) -> v = version }; /* over W */
            atomic {
#ifndef PAST_KEPT
                drop_write();
#endif
                hand(r, v);
                v = 0 }
        fi;
next:
        skip
    :: atomic { reads == 0 -> break }
    od
}

proctype Writer() {
    byte v;
    do
    :: atomic { calls > 0 && writes > 0 ->
            writes--;
            if /* rc_engine_submit */
            :: drop_write()
            :: true /* the value of a refresh: others read the old one meanwhile */
            fi };
        atomic { change(true, PUSH); v = version };
        atomic { /* rc_engine_take_finished */
#ifndef NO_ACK_DROP
            drop_write();
#endif
            raise(known, v);
            v = 0 }
    :: atomic { calls == 0 || writes == 0 -> break }
    od
}

init {
    byte n;
    atomic {
        for (n : 0 .. WORKERS - 1) { run Redis(n); run Engine(n) }
        for (n : 0 .. READERS - 1) { run Reader(n, WORKER(n)) }
        n = 0;
        run Writer();
        run World()
    }
}
