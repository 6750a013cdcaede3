/*
 * lease_redis - what lease.pml stands on: bounds, state, Redis with its scripts, and faults.
 *
 * What:    a script is one step. Sets are bits. Flights and callers are lease.pml's to change.
 */

#ifndef CLIENTS
#define CLIENTS 2
#endif
#ifndef CALLERS
#define CALLERS 2 /* one or two to a client */
#endif
#ifndef CHANGES
#define CHANGES 0 /* of the source, each followed by an invalidation */
#endif
#ifndef EXPIRIES
#define EXPIRIES 0 /* of a lease whose holder lives, or a value; that of a lost lease is free */
#endif
#ifndef LOSSES
#define LOSSES 0 /* broken connections */
#endif
#ifndef CRASHES
#define CRASHES 0 /* clients that die */
#endif
#ifndef LEAVES
#define LEAVES 0 /* callers whose time is up, and loads beyond maxLoadTime */
#endif
#ifndef REFRESHES
#define REFRESHES 0
#endif

#define CLIENT(caller) ((caller) % CLIENTS)
#define BIT(n) (1 << (n))
#define IS(set, n) (((set) >> (n)) & 1)
#define MEMBERS(c) (BIT(c) | BIT(c + CLIENTS)) /* the callers of a client */
#define FIRST_NONCE 255             /* version of the value that may stand there at first */

mtype = { ABSENT, LEASE, VALUE, MARK };    /* what stands in the key */
mtype = { ACQUIRED, BUSY, FOUND, FAILED }; /* answers of RC_SCRIPT_ACQUIRE */
mtype = { STORED, NEWER, LOST };           /* answers of RC_SCRIPT_PUBLISH */

/* Redis. The key's id: token of the lease, version of the value (0: a plain one), or token of the
   lease that failed. */
mtype kind = ABSENT;
byte id, value;
byte helper;        /* the second key of a refresh: its token; 0: absent */
byte lock;          /* SEPARATE_LOCK: its token */
byte tracked, push; /* sets of clients: will be told of a change; the push is on its way */
byte late;          /* token of an acquire on a lost connection that Redis may still read; or 0 */

/* The source's state, and the oldest that may still be stored: that of the last invalidation. */
byte truth, newest;

/* Flights, by client. */
byte dead, ending;     /* sets of clients: died; a publish is under way */
byte token[CLIENTS];   /* the next one: random in life, here nobody else's */
byte asked[CLIENTS];   /* token of the flight's lease or request */
byte waited[CLIENTS];  /* token of the lease it waits for */
byte leader[CLIENTS];  /* caller + 1; 0: none */

/* Callers. As sets: in the flight; joined when its request was sent; joined when the request was
   sent that found the lease waited for; served. */
byte waiting, in_cut, saw_lease, done;
byte held[2 * CLIENTS];      /* token of the lease whose loader it runs */
byte since[2 * CLIENTS];     /* `newest` when the call began */
byte old_error[2 * CLIENTS]; /* the marker that stood there when the call began */

byte calls = CALLERS; /* that have not ended: after the last nothing else matters */
byte changes = CHANGES, expiries = EXPIRIES, losses = LOSSES, crashes = CRASHES, leaves = LEAVES,
     refreshes = REFRESHES;

#ifdef SEPARATE_LOCK
#define STANDS(t) (lock == (t))
#else
#define STANDS(t) (kind == LEASE && id == (t))
#endif
#if defined BLIND_SET
#define MAY_PUBLISH(t) true
#elif defined ANY_LEASE
#define MAY_PUBLISH(t) (kind == LEASE)
#else
#define MAY_PUBLISH(t) STANDS(t)
#endif
#ifdef HAND_ANY
#define IS_VALUE (kind != ABSENT)
#else
#define IS_VALUE (kind == VALUE)
#endif
#define RUNS(t) \
    (held[0] == (t) || held[1] == (t) || \
     held[2 * CLIENTS - 2] == (t) || held[2 * CLIENTS - 1] == (t))
#define IS_ORPHAN(t) (!RUNS(t) && asked[0] != (t) && asked[CLIENTS - 1] != (t))

/* ---- Redis ----------------------------------------------------------------------------------- */

/* The key changes. Who tracks it is told once, and forgotten. */
inline put(k, i, v) {
    push = push | tracked;
    tracked = 0;
    kind = k; id = i; value = v
}

inline release(t) {
    if
    :: STANDS(t) ->
#ifdef SEPARATE_LOCK
        lock = 0
#else
        put(ABSENT, 0, 0)
#endif
    :: else
    fi
}

/* RC_SCRIPT_ACQUIRE. What stood in T's stream before its answer was read before, when nobody
   waited for it. v: of the value, or the token of the lease that is in the way. */
inline run_acquire(c, t) {
    push = push & ~BIT(c);
    if
    :: kind == VALUE -> answer = FOUND; v = value; tracked = tracked | BIT(c)
    :: kind == MARK && id == waited[c] -> answer = FAILED
#ifdef SEPARATE_LOCK
    :: else ->
        if
        :: lock == 0 || lock == t -> lock = t; use_token(c); answer = ACQUIRED
        :: else -> answer = BUSY; v = lock; tracked = tracked | BIT(c)
        fi
#else
    :: kind == LEASE && id == t -> answer = ACQUIRED
    :: kind == LEASE && id != t -> answer = BUSY; v = id; tracked = tracked | BIT(c)
    :: kind == ABSENT || (kind == MARK && id != waited[c]) ->
        put(LEASE, t, 0); use_token(c); answer = ACQUIRED
#endif
    fi
}

/* RC_SCRIPT_COVER, before the end of the value that a refresh is to replace. It compares what it
   takes the place of. */
#ifdef COVER_ABSENT
#define MAY_COVER(seen) (kind == ABSENT || (kind == VALUE && id == (seen)))
#else
#define MAY_COVER(seen) (kind == VALUE && id == (seen))
#endif
inline cover(t, seen) {
    if
    :: helper == t && MAY_COVER(seen) -> put(LEASE, t, 0)
    :: else
    fi
}

inline store(k, t, v) {
    assert(k == MARK || v >= newest); /* no stale set */
    put(k, t, v)
}

/* RC_SCRIPT_PUBLISH, of a value or of an error marker. */
inline run_publish(k, t, v) {
    if
    :: MAY_PUBLISH(t) -> store(k, t, v); release(t); answer = STORED
    :: else ->
        if
        :: kind == k && id == t -> answer = STORED /* once more: the first answer was lost */
        :: kind == VALUE && !(k == VALUE && id == t) -> answer = NEWER; newer = value
        :: else -> answer = LOST
        fi
    fi
}

/* ---- everybody else -------------------------------------------------------------------------- */

/* Programs in any language: they change the source, then tell Redis. */
proctype Others() {
    do
    :: changes > 0 && calls > 0 ->
        atomic { changes--; truth++ };
        atomic {
            newest = truth;
            if
            :: kind == ABSENT /* nothing is told */
            :: kind != ABSENT -> put(ABSENT, 0, 0)
            :: put(VALUE, 0, truth)
            :: put(ABSENT, 0, 0); helper = 0; push = ~dead & (BIT(CLIENTS) - 1) /* flush */
            fi
        }
    :: else -> break
    od
}

/* Redis tells of an expiry when it comes across the key: at once, or too late for anybody. */
inline expire() {
    if
    :: put(ABSENT, 0, 0)
    :: kind = ABSENT; id = 0; value = 0
    fi
}

proctype Time() {
end:
    do
    :: atomic { calls > 0 && kind == LEASE && IS_ORPHAN(id) -> expire() }
    :: atomic { calls > 0 && lock != 0 && IS_ORPHAN(lock) -> lock = 0 }
    :: atomic { calls > 0 && kind != ABSENT && expiries > 0 -> expiries--; expire() }
    :: atomic { calls > 0 && helper != 0 && expiries > 0 -> expiries--; helper = 0 }
    :: atomic { calls > 0 && late != 0 ->
        if
        :: kind == ABSENT -> put(LEASE, late, 0)
        :: else
        fi;
        late = 0 }
    od
}
