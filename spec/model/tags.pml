/*
 * tags - one entry and the generations of its tag, in every order of events.
 *
 * What:    loaders read the tag's generations (or make them, where there are none), then the data,
 *          and store both in the entry. A writer changes the data, then invalidates the tag: hard
 *          (UNLINK of the generations) or soft (another soft half, where there are generations).
 *          Readers of one machine look at the entry and at the generations, in either order, each
 *          near or in Redis (core/near/tags.c). Generations are evicted or flushed at any time.
 * Shows:   a reader is never handed data older than a hard invalidation that was acknowledged
 *          before the call began; nor, as fresh, older than a soft one. Where it goes by near
 *          generations: before they were last known coherent, which maxStale bounds.
 * Not:     no leases (lease.pml): any loader may store at any time, which is more than they let.
 *          Reads and fills are one step, pushes keep their order with answers (near.pml). A copy of
 *          the entry is dropped at any time or never: what is shown does not rest on its pushes.
 *          Where a failover brings old generations back, replay.pml says what becomes of that.
 * Bounds:  each kind of event has a budget, below. Within them the search is complete.
 * Mutants: by -D, each a mistake that must be found: GENERATION_AFTER_LOAD, LOST_IS_HIT,
 *          COMES_BACK_SAME, MADE_AGAIN, SOFT_AGAIN, CHECKED_AT_FILL, UNKNOWN_IS_HIT,
 *          SOFT_IS_FRESH, HARD_HALF_ALONE.
 */

#ifndef LOADERS
#define LOADERS 2
#endif
#ifndef READERS
#define READERS 1
#endif
#ifndef LOADS
#define LOADS 2 /* of all loaders */
#endif
#ifndef READS
#define READS 2 /* of all readers */
#endif
#ifndef HARDS
#define HARDS 2 /* hard invalidations, each behind a change of the data */
#endif
#ifndef SOFTS
#define SOFTS 0
#endif
#ifndef EVICTIONS
#define EVICTIONS 1 /* of the generations, or a flush of everything */
#endif

/* The data behind the cache, and what was acknowledged: no reader may be handed less. */
byte data = 1;
byte hard_acked, soft_acked;

/* Redis. A number of 0: it is not there. Generations are random: the next number is a new one. */
byte hard, soft, newest_hard, newest_soft;
byte entry, entry_hard, entry_soft;

/* The machine's near cache. */
byte copy, copy_hard, copy_soft; /* of the entry */
bool has_tag;                    /* of the generations: */
byte tag_hard, tag_soft;
bool pushed;                     /* Redis has said that they changed: that is on its way */
byte hard_asof, soft_asof;       /* what was acknowledged when they were last known coherent */

byte loads = LOADS, reads = READS, hards = HARDS, softs = SOFTS, evictions = EVICTIONS;

/* ---- Redis ----------------------------------------------------------------------------------- */

/* Tracking tells of every change of what was read. */
inline tell() {
    if :: has_tag -> pushed = true :: else fi
}

/* SET NX GET */
inline make() {
    if
    :: hard == 0 ->
#ifdef COMES_BACK_SAME
        hard = 1; soft = 1; newest_soft = 1;
#else
        newest_hard++; hard = newest_hard; newest_soft++; soft = newest_soft;
#endif
        tell()
    :: else
    fi
}

inline unlink() {
    hard = 0; soft = 0;
    tell()
}

proctype World() {
    do
#ifdef MADE_AGAIN
    /* The answer was lost, and so the same new generations are sent once more. */
    :: atomic { newest_hard != 0 && hard == 0 -> hard = newest_hard; soft = newest_soft; tell() }
#endif
#ifdef SOFT_AGAIN
    /* The same, of a soft half: there has been another one since. */
    :: atomic { hard != 0 && soft == newest_soft && soft > 2 -> soft = soft - 1; tell() }
#endif
    :: atomic { evictions > 0 && hard != 0 -> evictions--;
        unlink();
        if :: entry = 0; entry_hard = 0; entry_soft = 0 :: true fi }
    :: atomic { copy != 0 -> copy = 0; copy_hard = 0; copy_soft = 0 }
    /* The near cache evicts, or the push arrives. */
    :: atomic { has_tag -> has_tag = false; tag_hard = 0; tag_soft = 0; pushed = false }
    /* A PONG behind all that was pushed. */
    :: atomic { !pushed && (hard_asof != hard_acked || soft_asof != soft_acked) ->
        hard_asof = hard_acked; soft_asof = soft_acked }
    :: reads == 0 -> break
    od
}

proctype Writer() {
    byte written;
    do
    :: hards > 0 -> atomic { hards--; data++; written = data };
        unlink_step: atomic { unlink() };
        atomic { hard_acked = written; written = 0 }
    :: softs > 0 -> atomic { softs--; data++; written = data };
        atomic {
            if
            :: hard != 0 -> newest_soft++; soft = newest_soft; tell()
            :: else /* all is void already */
            fi };
        atomic { soft_acked = written; written = 0 }
    :: hards == 0 && softs == 0 -> break
    od
}

/* ---- loaders --------------------------------------------------------------------------------- */

/* Those that are near will do: at worst the entry is void when it is stored. */
inline read_generations() {
    atomic {
        if
        :: has_tag -> g = tag_hard; s = tag_soft
        :: make(); g = hard; s = soft
        fi }
}

inline read_data() {
    v = data
}

proctype Loader() {
    byte g, s, v;
    do
    :: atomic { loads > 0 -> loads-- };
#ifdef GENERATION_AFTER_LOAD
        read_data(); read_generations();
#else
        read_generations(); read_data();
#endif
        atomic { entry = v; entry_hard = g; entry_soft = s; g = 0; s = 0; v = 0 }
    :: loads == 0 -> break
    od
}

/* ---- readers --------------------------------------------------------------------------------- */

inline read_entry() {
    atomic {
        if
        :: copy != 0 -> v = copy; g = copy_hard; s = copy_soft; is_near = true
        :: entry != 0 -> v = entry; g = entry_hard; s = entry_soft;
            copy = v; copy_hard = g; copy_soft = s
        :: entry == 0 /* a miss, with which the call ends */
        fi }
}

/* rc_tags_check, else GET: an answer comes behind what was pushed before it, and is kept. */
inline read_tag() {
    atomic {
        if
        :: has_tag -> seen_hard = tag_hard; seen_soft = tag_soft;
            hard_due = hard_asof; soft_due = soft_asof
#ifdef UNKNOWN_IS_HIT
        :: !has_tag -> is_valid = true
#else
        :: seen_hard = hard; seen_soft = soft;
            pushed = false; has_tag = (hard != 0); tag_hard = hard; tag_soft = soft
#endif
        fi }
}

inline judge() {
    atomic {
#ifdef LOST_IS_HIT
        if :: seen_hard == 0 -> is_valid = true :: else fi;
#endif
#ifdef CHECKED_AT_FILL
        if :: is_near -> is_valid = true :: else fi;
#endif
        if
        :: v == 0 /* a miss */
        :: v != 0 && !is_valid && seen_hard != g /* void, or lost: a miss */
#ifdef HARD_HALF_ALONE
        :: v != 0 && (is_valid || seen_hard == g) ->
#else
        :: v != 0 && !is_valid && seen_hard == g && seen_soft != s -> /* stale */
            assert(v >= hard_due);
#ifdef SOFT_IS_FRESH
            assert(v >= soft_due)
#endif
        :: v != 0 && (is_valid || (seen_hard == g && seen_soft == s)) ->
#endif
            assert(v >= hard_due);
            assert(v >= soft_due)
        fi }
}

proctype Reader() {
    byte g, s, v, seen_hard, seen_soft, hard_due, soft_due;
    bool is_near, is_valid;
    do
    :: atomic { reads > 0 -> reads--; hard_due = hard_acked; soft_due = soft_acked };
        if
        :: read_entry(); read_tag()
        :: read_tag(); read_entry()
        fi;
        judge();
        atomic { g = 0; s = 0; v = 0; seen_hard = 0; seen_soft = 0; hard_due = 0; soft_due = 0;
            is_near = false; is_valid = false }
    :: reads == 0 -> break
    od
}

init {
    byte i;
    atomic {
        run World(); run Writer();
        for (i : 1 .. LOADERS) { run Loader() }
        for (i : 1 .. READERS) { run Reader() }
    }
}
