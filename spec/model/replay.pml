/*
 * replay - deletes of one key and what a failover may make of them, in every order of events.
 *
 * What:    an engine reads and deletes a key (replay.c of core/engine); others write it. Each value
 *          has a version, the next number. The replica has some earlier state of the master: a
 *          failover loses all since. Connections break without any loss, too; what is executed may
 *          go unheard, and is then no acknowledged delete. In a cluster the key also goes to an
 *          heir elsewhere, with or without a loss, and the engine learns of it late: by a map, or
 *          where a command is sent on (rc_topology_hand_over).
 * Shows:   no delete, sent again, takes away a value that was written after the delete was
 *          executed. A delete that was acknowledged, of a version the engine had seen before, stays
 *          done: when the engine is connected again, that version does not stand there.
 * Not:     no leases (lease.pml), and one key. That a server tells which it is, is taken for
 *          granted; so is what the ten seconds are for. An answer of the old server that comes
 *          behind its end is one that comes late.
 * Bounds:  each kind of event has a budget, below. Within them the search is complete.
 * Mutants: by -D, each a mistake that must be found: REPLAY_ANY, SEEN_LATE, LATE_SERVER,
 *          ABOUT_TOO_SOON, LEFT_BEHIND, HEIR_HAS_IT.
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
#ifndef MOVES
#define MOVES 1 /* to an heir elsewhere */
#endif

byte newest = 1;             /* the last version that was written */
byte stands = 1, copied = 1; /* what the master, and its replica, hold; 0: nothing */
byte server = 1;             /* which server has the key */
bool broken;                 /* the engine's connection */
byte writes = WRITES, deletes = DELETES, losses = LOSSES, failovers = FAILOVERS, moves = MOVES;

/* The engine. */
byte knows = 1; /* the server that it takes for the key's */
byte seen;     /* the version it read last; 0: none */
byte about;    /* the delete's: what had been seen before it; 0: not known */
byte noted;    /* the server that is taken to have acknowledged it; 0: no delete is noted */
byte executed; /* `newest` when the noted delete was executed: no later value is its business */

proctype World() {
    do
    :: atomic { writes > 0 -> writes--; newest++; stands = newest }
    /* The replica hears of it. */
    :: atomic { copied != stands && failovers + moves > 0 -> copied = stands }
    :: atomic { losses > 0 && !broken -> losses--; broken = true }
    :: atomic { failovers > 0 -> failovers--; stands = copied; server++; broken = true }
    :: atomic { moves > 0 -> moves--; if :: stands = copied :: true fi; server++ }
    :: break
    od
}

/* RC_SCRIPT_UNLINK_VERSION, where the server is another one than that which acknowledged. */
inline send_again() {
#ifdef LATE_SERVER
    if :: noted != 0 -> noted = knows :: else fi;
#endif
    if
#ifdef REPLAY_ANY
    :: noted != 0 && stands != 0 ->
#else
    :: noted != 0 && noted != knows && about != 0 && stands == about ->
#endif
        assert(stands <= executed); /* never a value written since */
        stands = 0
    :: else
    fi;
    if :: noted != 0 -> noted = knows :: else fi;
    assert(noted == 0 || about == 0 || stands != about) /* never back */
}

/* The key is elsewhere: what is noted of it goes along. */
inline learn() {
    knows = server;
#ifdef LEFT_BEHIND
    assert(noted == 0 || about == 0 || stands != about)
#else
    send_again()
#endif
}

proctype Engine() {
    byte known, limit, asked;
    do
    :: atomic { !broken && stands != 0 -> seen = stands }
    :: atomic { !broken && deletes > 0 -> deletes--; known = seen; asked = knows
#ifdef ABOUT_TOO_SOON
        ; about = known
#endif
        };
        if
        :: atomic { !broken ->
            if :: knows != server -> learn() :: else fi; /* it was sent on */
            stands = 0; limit = newest };
            if
            /* Others' calls go on meanwhile. */
            :: atomic { !broken && stands != 0 -> seen = stands }
            :: atomic { !broken && knows != server -> learn() }
            :: true
            fi;
            if
            :: atomic { !broken ->
#ifdef SEEN_LATE
                known = seen;
#endif
                /* Else what an earlier one was about. */
                if :: known != 0 -> about = known :: else fi;
#ifdef HEIR_HAS_IT
                noted = knows;
#else
                noted = asked;
#endif
                executed = limit;
                if
                :: noted != knows -> send_again()
                :: else -> /* what was deleted does not stand there */
                    assert(about == 0 || about > executed || knows != server || stands != about)
                fi }
            :: broken /* unheard: nobody knows what became of it */
            fi
        :: broken
        fi;
        known = 0; limit = 0; asked = 0
    :: atomic { broken -> broken = false; knows = server; send_again() }
    :: atomic { !broken && knows != server -> learn() }
    :: deletes == 0 && !broken && losses == 0 && failovers == 0 && moves == 0 -> break
    :: timeout -> break
    od
}

init {
    atomic { run World(); run Engine() }
}
