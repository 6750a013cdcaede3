/*
 * replay - deletes of one key and what a failover may make of them, in every order of events.
 *
 * What:    an engine reads and deletes a key (replay.c of core/engine); others write it. Each value
 *          has a version, the next number. The replica has some earlier state of the master: a
 *          failover loses all since. Connections break without any loss, too; what is executed may
 *          go unheard, and is then no acknowledged delete.
 * Shows:   no delete, sent again, takes away a value that was written after the delete was
 *          executed. A delete that was acknowledged, of a version the engine had seen before, stays
 *          done: when the engine is connected again, that version does not stand there.
 * Not:     no leases (lease.pml), and one key. That a server tells which it is, is taken for
 *          granted; so is what the ten seconds are for.
 * Bounds:  each kind of event has a budget, below. Within them the search is complete.
 * Mutants: by -D, each a mistake that must be found: REPLAY_ANY, SEEN_LATE, LATE_SERVER,
 *          ABOUT_TOO_SOON.
 */

#ifndef WRITES
#define WRITES 2
#endif
#ifndef DELETES
#define DELETES 2
#endif
#ifndef LOSSES
#define LOSSES 1 /* connections that break, and nothing else */
#endif
#ifndef FAILOVERS
#define FAILOVERS 1
#endif

byte newest = 1;             /* the last version that was written */
byte stands = 1, copied = 1; /* what the master, and its replica, hold; 0: nothing */
byte server = 1;             /* which server is the master */
bool broken;                 /* the engine's connection */
byte writes = WRITES, deletes = DELETES, losses = LOSSES, failovers = FAILOVERS;

/* The engine. */
byte seen;     /* the version it read last; 0: none */
byte about;    /* the delete's: what had been seen before it; 0: not known */
byte noted;    /* the server that acknowledged it; 0: no delete is noted */
byte executed; /* `newest` when the noted delete was executed: no later value is its business */

proctype World() {
    do
    :: atomic { writes > 0 -> writes--; newest++; stands = newest }
    :: atomic { copied != stands && failovers > 0 -> copied = stands } /* the replica hears of it */
    :: atomic { losses > 0 && !broken -> losses--; broken = true }
    :: atomic { failovers > 0 -> failovers--; stands = copied; server++; broken = true }
    :: break
    od
}

/* RC_SCRIPT_UNLINK_VERSION, where the server is another one than that which acknowledged. */
inline send_again() {
#ifdef LATE_SERVER
    if :: noted != 0 -> noted = server :: else fi;
#endif
    if
#ifdef REPLAY_ANY
    :: noted != 0 && stands != 0 ->
#else
    :: noted != 0 && noted != server && about != 0 && stands == about ->
#endif
        assert(stands <= executed); /* never a value written since */
        stands = 0
    :: else
    fi;
    if :: noted != 0 -> noted = server :: else fi;
    assert(noted == 0 || about == 0 || stands != about) /* never back */
}

proctype Engine() {
    byte known, limit;
    do
    :: atomic { !broken && stands != 0 -> seen = stands }
    :: atomic { !broken && deletes > 0 -> deletes--; known = seen
#ifdef ABOUT_TOO_SOON
        ; about = known
#endif
        };
        if
        :: atomic { !broken -> stands = 0; limit = newest };
            if
            /* Others' calls go on meanwhile. */
            :: atomic { !broken && stands != 0 -> seen = stands }
            :: true
            fi;
            if
            :: atomic { !broken ->
#ifdef SEEN_LATE
                known = seen;
#endif
                /* Else what an earlier one was about. */
                if :: known != 0 -> about = known :: else fi;
                noted = server; executed = limit }
            :: broken /* unheard: nobody knows what became of it */
            fi
        :: broken
        fi;
        known = 0; limit = 0
    :: atomic { broken -> broken = false; send_again() }
    :: deletes == 0 && !broken && losses == 0 && failovers == 0 -> break
    :: timeout -> break
    od
}

init {
    atomic { run World(); run Engine() }
}
