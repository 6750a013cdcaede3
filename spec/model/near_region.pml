/*
 * near_region - what near.pml stands on: bounds, state, Redis and its two streams per worker, the
 * region, and what befalls them.
 *
 * What:    a call of core/near is one step. Sets are bits. Engines and callers are near.pml's to
 *          change.
 */

#ifndef WORKERS
#define WORKERS 2
#endif
#ifndef READERS
#define READERS 2 /* one or two to a worker */
#endif
#ifndef READS
#define READS 4 /* calls, of all readers */
#endif
#ifndef WRITES
#define WRITES 0 /* by this machine */
#endif
#ifndef CHANGES
#define CHANGES 0 /* by others */
#endif
#ifndef EXPIRIES
#define EXPIRIES 0
#endif
#ifndef LOSSES
#define LOSSES 0 /* of a T connection */
#endif
#ifndef PINGS
#define PINGS 0
#endif
#ifndef REFUSALS
#define REFUSALS 0 /* fills that find no room */
#endif

#define FETCHES (3 * WORKERS)
#define WORKER(reader) ((reader) % WORKERS)
#define PEER(reader) (((reader) + WORKERS) % (2 * WORKERS)) /* the other reader of the worker */
#define CHECK(w) (2 * WORKERS + (w)) /* the fetch that stands for the worker's revalidation */
#define BIT(n) (1 << (n))
#define IS(set, n) (((set) >> (n)) & 1)
#define EVERY (BIT(WORKERS) - 1)
#define STANDS(v) IS(values, v)

mtype = { GET, PTTL, PING };              /* requests, with a fetch or the horizon to be */
mtype = { GOT, LIFE, PONG, PUSH, FLUSHED }; /* answers and pushes */

/* Redis. The version grows with every change of the key, of whatever kind. */
byte version = 1;
byte values = 2;    /* set of versions that are values; the others are placeholders, or nothing */
byte expired;       /* the version that came to its end by time; 0: none */
byte tracked;       /* set of workers who will be told of a change */
byte up = EVERY;    /* set of workers whose T connection stands, as Redis sees it */
chan line[WORKERS] = [6] of { mtype, byte };
chan stream[WORKERS] = [10] of { mtype, byte };

/* The region. */
byte copy, owner;   /* version of the entry; 0: there is none */
bool is_old;        /* its stamp is not its owner's */
bool is_past;       /* read over a connection that was lost; what is_old should know */
byte moved;         /* set of fetches since whose start the count of writes has moved */
byte asof[WORKERS]; /* version that stood in Redis at the horizon */

/* Engines. Fetches by the reader who started them. */
byte ready = EVERY;        /* set of workers whose T is ready, as they see it */
byte running, open, doomed; /* sets of fetches: not answered yet; may be joined; not to be kept */
byte void_check;           /* set of workers whose revalidation belongs to an earlier round */
byte half[WORKERS];        /* fetch of whose two answers one was read, + 1 */
byte sent[FETCHES]; /* version that stood when it was sent */
byte got[FETCHES];         /* version that Redis read for it */

/* Callers. */
byte on[READERS];    /* the fetch it waits for, + 1 */
byte since[READERS]; /* `known` when the call began */
byte known;          /* newest version that anybody of the machine was handed or had acknowledged */

byte calls = READS; /* that have not ended: after the last nothing else matters */
byte reads = READS, writes = WRITES, changes = CHANGES, expiries = EXPIRIES, losses = LOSSES,
     pings = PINGS, refusals = REFUSALS;

/* ---- Redis ----------------------------------------------------------------------------------- */

inline say(w, m, x) {
    assert(nfull(stream[w])); /* else the model would wait where life does not */
    stream[w]!m(x)
}

inline tell(w, m) {
    if
    :: IS(tracked, w) || (m == FLUSHED && IS(up, w)) ->
        tracked = tracked & ~BIT(w);
        say(w, m, 0)
    :: else
    fi
}

inline change(is_value, m) {
    version++;
    values = values | (is_value << version);
    tell(0, m);
#if WORKERS > 1
    tell(1, m)
#endif
}

proctype Redis(byte w) {
    mtype m;
    byte x;
end:
    do
    :: atomic { calls > 0 && IS(up, w) && nempty(line[w]) ->
        line[w]?m(x);
        if
        :: m == GET -> tracked = tracked | BIT(w); got[x] = version; say(w, GOT, x)
        :: m == PTTL -> tracked = tracked | BIT(w); say(w, LIFE, x)
        :: m == PING -> say(w, PONG, x)
        fi;
        m = 0; x = 0 }
    od
}

/* ---- the region: near_write.c, near_scan.c, near.c ------------------------------------------- */

inline take_out() { copy = 0; owner = 0; is_old = false; is_past = false }

inline drop_write() { take_out(); moved = running }

inline raise(x, v) { x = (v > x -> v : x) }

inline put_in(w, f) {
    copy = got[f];
    owner = w;
    is_old = false; is_past = false
}

/* rc_near_fill. What is handed out counts as a write, kept or not: else an older answer, on its way
   over another connection, could be kept behind it. */
inline fill(w, f) {
    if
#ifndef NO_WRITES
    :: IS(moved, f) ->
        if
        :: copy == got[f]
        :: copy != 0 && copy != got[f] -> drop_write()
#ifdef DOOM_UNCOUNTED
        :: copy == 0
#else
        :: copy == 0 -> moved = running
#endif
        fi
    :: !IS(moved, f) ->
#else
    :: true ->
#endif
#ifndef FILL_UNCOUNTED
        moved = running;
#endif
        put_in(w, f)
    :: !IS(moved, f) && refusals > 0 -> refusals--;
        take_out();
#ifndef REFUSAL_UNCOUNTED
        moved = running
#endif
    fi
}

/* fetch.c: keep. */
inline keep(w, f) {
    if
#ifndef KEEP_ANY
    :: !STANDS(got[f]) -> drop_write()
#endif
    :: IS(doomed, f) -> drop_write()
    :: got[f] == expired -> drop_write() /* its time is over */
    :: else -> fill(w, f)
    fi
}

/* rc_near_confirm, rc_near_drop_claim. */
inline confirm(w, f) {
    if
    :: copy != 0 && owner == w && is_old ->
        if
#ifdef CONFIRM_ANY
        :: true -> is_old = false; is_past = false
#else
        :: copy == got[f] && STANDS(got[f]) && got[f] != expired ->
            is_old = false; is_past = false
        :: else -> take_out()
#endif
        fi
    :: else
    fi
}

/* ---- the world ----------------------------------------------------------------------------- */

/* Everybody else, and what breaks. */
proctype World() {
end:
    do
    :: atomic { calls > 0 && changes > 0 -> changes--;
        if
        :: change(true, PUSH)
        :: change(false, PUSH)
        :: change(false, FLUSHED)
        fi }
    /* Redis tells when it comes across it. */
    :: atomic { calls > 0 && STANDS(version) && expiries > 0 -> expiries--;
        expired = version;
        if
        :: change(false, PUSH)
        :: version++
        fi }
    :: atomic { calls > 0 && IS(up, 0) && losses > 0 -> losses--; up = up & ~BIT(0);
                tracked = tracked & ~BIT(0) }
    od
}
