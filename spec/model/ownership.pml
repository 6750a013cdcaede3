/*
 * ownership - near copies in a cluster: one key, whose slot goes from master to master.
 *
 * What:    an engine reads the key over T from the node that it takes for the owner, keeps a copy,
 *          and asks all masters in rounds who owns the slot (ownership.c and topology.c of
 *          core/engine). Nodes answer when they like, and hear of a new owner when they like: one
 *          that was stopped, or cut off, does both late. Somebody writes at the true owner. An old
 *          owner tells of its keys late, or never.
 * Shows:   a copy that is served was current when the question was sent that vouches for it: there
 *          is no acknowledged write before that which it does not have. A write counts as soon as
 *          two of the three masters know the owner that took it.
 * Not:     time is an order and no more: that copies are served for maxStale behind that question,
 *          and no longer, is near.pml's. No connection breaks; no writes are lost, or taken by an
 *          old owner. Nodes have epochs of their own and none of the cluster.
 * Bounds:  each kind of event has a budget, below. Within them the search is complete.
 * Mutants: by -D, each a mistake that must be found: PONG_OWNS, OWN_WORD, WORD_WHEN_HEARD,
 *          NO_EPOCH, KEEP_MOVED, KEEP_DOUBTED, UNCONFIRMED, KEEP_READ, SURE_AT_ONCE.
 */

#ifndef WRITES
#define WRITES 1
#endif
#ifndef MOVES
#define MOVES 1
#endif
#ifndef ROUNDS
#define ROUNDS 2
#endif
#ifndef READS
#define READS 1
#endif
#ifndef MAPS
#define MAPS 0
#endif

/* A and B have the slot in turns. With FAILOVER they are a master and its replica, and 2 and 3 the
   other masters; without it A, B and 2 are the masters. */
#define A 0
#define B 1
#ifdef FAILOVER
#define NODES 4
#define IS_MASTER(n) ((n) > B || (n) == ours)
#else
#define NODES 3
#define IS_MASTER(n) true
#endif

mtype = { READ, PING, VALUE, MOVED, PUSH, PONG };

/* The cluster. */
byte newest = 1;      /* the last version that was written */
byte due = 1;         /* the last that counts */
byte holder = A;      /* the owner in truth */
byte stands[2];       /* what A and B hold */
byte believes[NODES]; /* who owns the slot, as this node knows */
byte epoch[NODES];    /* its own: grows when it takes the slot */
bool tracks[2];       /* the engine has read the key there: it is to be told */
byte writes = WRITES, moves = MOVES;
chan to_node[2] = [2] of { mtype, byte };
chan from_node[2] = [3] of { mtype, byte };

/* The engine. */
byte ours = A;      /* who owns the slot, as it knows */
byte copy, source;  /* the version that is kept, 0: none; and the node that said it */
byte pinged[2];     /* `due` when T was last asked to say that it is coherent */
byte reached[2];    /* that, of the last PING that was answered: T is coherent as of then */
byte heard[NODES];  /* the same of the last question that the node has answered as a master */
byte known[NODES];  /* the node's epoch, then */
byte vouched[2];
bool is_unsure, is_contested, is_doubted, has_moved;
byte missing;       /* answers of the round */
byte reading[2], voided[2]; /* reads under way; so many of them began before the epoch */
byte reads = READS, rounds = ROUNDS, maps = MAPS;

/* Questions to the nodes, beside T. */
byte asked[NODES]; /* `due` when it was sent; 0: none */
bool is_answered[NODES];
byte word[NODES], told[NODES]; /* who is the owner, and the node's epoch */

/* Asked again behind a majority's answers: has the node the same epoch still? */
byte again[2]; /* up to here its word would stand; 0: not asked */
bool is_told[2];
byte told_again[2];
byte sure[2]; /* up to here it stands */
bool is_new[2], is_proven[2]; /* asked, and answered, for this round */
bool has_said[NODES];         /* it has answered in this round */

/* ---- the cluster ----------------------------------------------------------------------------- */

#ifdef FAILOVER /* the pair is one master, and knows if both do */
#define UNAWARE ((believes[A] != holder || believes[B] != holder) + (believes[2] != holder) + \
                 (believes[3] != holder))
#else
#define UNAWARE ((believes[A] != holder) + (believes[B] != holder) + (believes[2] != holder))
#endif

inline judge_due() {
    if :: UNAWARE <= 1 -> due = newest :: else fi
}

inline learn(n) {
    atomic { believes[n] != holder -> believes[n] = holder; judge_due() }
}

/* Keys that have left are told of, or not. */
inline trim(n) {
    atomic { tracks[n] && believes[n] != n && nfull(from_node[n]) ->
        tracks[n] = false;
        if :: from_node[n]!PUSH(0) :: true fi }
}

proctype World() {
end:
    do
    :: atomic { writes > 0 && nfull(from_node[holder]) ->
        writes--; newest++; stands[holder] = newest;
        if :: tracks[holder] -> tracks[holder] = false; from_node[holder]!PUSH(0) :: else fi;
        judge_due() }
    :: atomic { moves > 0 && believes[1 - holder] == holder ->
        moves--;
        stands[1 - holder] = stands[holder];
        holder = 1 - holder;
        believes[holder] = holder;
        epoch[holder]++;
        tracks[holder] = false;
        judge_due() }
    :: learn(A)
    :: learn(B)
    :: learn(2)
#ifdef FAILOVER
    :: learn(3)
#endif
    :: trim(A)
    :: trim(B)
    od
}

/* What it is asked over T, in order. */
inline serve(n) {
    atomic { nempty(to_node[n]) && nfull(from_node[n]) ->
        to_node[n]?what(as_of);
        if
        :: what == PING -> from_node[n]!PONG(as_of)
        :: what == READ && believes[n] == n -> from_node[n]!VALUE(stands[n]); tracks[n] = true
        :: what == READ && believes[n] != n -> from_node[n]!MOVED(believes[n])
        fi;
        what = 0; as_of = 0 }
}

inline answer(n) {
    atomic { asked[n] != 0 && !is_answered[n] ->
        is_answered[n] = true; word[n] = believes[n]; told[n] = epoch[n] }
}

inline answer_again(n) {
    atomic { again[n] != 0 && !is_told[n] -> is_told[n] = true; told_again[n] = epoch[n] }
}

proctype Nodes() {
    mtype what;
    byte as_of;
end:
    do
    :: serve(A)
    :: serve(B)
    :: answer(0)
    :: answer(1)
    :: answer(2)
    :: answer_again(A)
    :: answer_again(B)
#ifdef FAILOVER
    :: answer(3)
#endif
    od
}

/* ---- the engine ------------------------------------------------------------------------------ */

#define LEAST(a, b) ((a) < (b) -> (a) : (b))
#define MOST(a, b) ((a) > (b) -> (a) : (b))

inline check() {
    assert(copy == 0 || copy >= LEAST(reached[source], vouched[source]))
}

/* What two of three have reached. */
#define MIDDLE(a, b, c) MOST(LEAST(a, b), LEAST(MOST(a, b), c))
#ifdef FAILOVER
#define MAJORITY MIDDLE(heard[ours], heard[2], heard[3])
#define SAID (has_said[ours] + has_said[2] + has_said[3])
#else
#define MAJORITY MIDDLE(heard[A], heard[B], heard[2])
#define SAID (has_said[A] + has_said[B] + has_said[2])
#endif

inline vouch(n) {
#ifdef PONG_OWNS
    vouched[n] = newest
#else
#ifdef OWN_WORD
    if :: IS_MASTER(n) -> vouched[n] = heard[n] :: else fi
#else
#ifdef UNCONFIRMED
    if :: IS_MASTER(n) -> vouched[n] = LEAST(heard[n], MAJORITY) :: else fi
#else
    if :: IS_MASTER(n) -> vouched[n] = sure[n] :: else fi
#endif
#endif
#endif
}

/* What it and a majority have answered wants a second word of it: the slot may have gone and come
   back between the answers. */
inline ask_again(n) {
    if
    :: IS_MASTER(n) && has_said[n] && SAID >= 2 && again[n] == 0 && !is_proven[n] ->
        again[n] = LEAST(heard[n], MAJORITY);
        is_new[n] = true
    :: else
    fi
}

/* The end of a round: what nobody doubted in it, and whose owner's word stands, is sure again. */
inline end_round() {
    if
    :: missing == 0 && SAID >= 2 ->
#ifdef SURE_AT_ONCE
        is_unsure = is_contested
#else
        is_unsure = is_contested || (is_unsure && !is_proven[ours])
#endif
    :: else
    fi
}

/* Drops what is in doubt or has moved, then vouches. */
inline settle() {
#ifndef KEEP_DOUBTED
    if :: is_doubted -> copy = 0 :: else fi;
#endif
#ifndef KEEP_MOVED
    if :: has_moved -> copy = 0 :: else fi;
#endif
    is_doubted = false; has_moved = false;
    ask_again(A);
    ask_again(B);
    vouch(A);
    vouch(B)
}

/* It has another epoch: what was read before may be of a time before the slot was away. */
inline begin_epoch(n, its) {
    known[n] = its;
#ifndef NO_EPOCH
    if :: source == n -> copy = 0 :: else fi;
#endif
#ifndef KEEP_READ
    voided[n] = reading[n]
#else
    skip
#endif
}

inline hear_again(n) {
    atomic { is_told[n] ->
        if
        :: known[n] != told_again[n] -> begin_epoch(n, told_again[n])
        :: else ->
            sure[n] = MOST(sure[n], again[n]);
            is_proven[n] = is_new[n]
        fi;
        again[n] = 0; is_told[n] = false; told_again[n] = 0; is_new[n] = false;
        end_round();
        settle();
        check() }
}

/* The answer of a node. */
inline hear(n) {
    atomic { is_answered[n] ->
        if
        :: n <= B && known[n] != told[n] -> begin_epoch(n, told[n])
        :: else
        fi;
        if
        :: word[n] != ours ->
            is_contested = true;
            if :: !is_unsure -> is_doubted = true :: else fi;
            is_unsure = true
        :: else
        fi;
        /* Of a pair it has slots as long as it takes itself for the master. */
        if
        :: NODES == 3 || n > B || word[n] == n ->
            has_said[n] = true;
#ifdef WORD_WHEN_HEARD
            heard[n] = due
#else
            heard[n] = asked[n]
#endif
        :: else
        fi;
        asked[n] = 0; is_answered[n] = false; word[n] = 0; told[n] = 0;
        missing--;
        end_round();
        settle();
        check() }
}

inline ask(n) {
    if :: IS_MASTER(n) -> asked[n] = due; missing++ :: else fi
}

inline receive(n) {
    atomic { nempty(from_node[n]) ->
        from_node[n]?what(v);
        is_void = voided[n] > 0;
        if
        :: what == VALUE || what == MOVED ->
            reading[n]--;
            if :: is_void -> voided[n]-- :: else fi
        :: else
        fi;
        if
        :: what == VALUE && ours == n && !is_unsure && !is_void -> copy = v; source = n
        :: what == PONG -> reached[n] = v
        :: what == PUSH && source == n -> copy = 0
        :: what == MOVED && v != ours -> ours = v; has_moved = true
        :: else
        fi;
        what = 0; v = 0; is_void = false;
        check() }
}

proctype Engine() {
    mtype what;
    byte v;
    bool is_void;
end:
    do
    :: atomic { reads > 0 && nfull(to_node[ours]) ->
        reads--; reading[ours]++; to_node[ours]!READ(0) }
    :: atomic { copy != 0 && pinged[source] < due && nfull(to_node[source]) ->
        pinged[source] = due; to_node[source]!PING(due) }
    :: atomic { rounds > 0 && missing == 0 ->
        rounds--;
        is_contested = false;
        has_said[A] = false; has_said[B] = false; has_said[2] = false;
#ifdef FAILOVER
        has_said[3] = false;
#endif
        is_proven[A] = false; is_proven[B] = false; is_new[A] = false; is_new[B] = false;
        ask(A); ask(B); ask(2);
#ifdef FAILOVER
        ask(3)
#endif
        }
    :: atomic { maps > 0 && believes[2] != ours -> maps--; ours = believes[2]; has_moved = true }
    :: receive(A)
    :: receive(B)
    :: hear(A)
    :: hear(B)
    :: hear(2)
    :: hear_again(A)
    :: hear_again(B)
#ifdef FAILOVER
    :: hear(3)
#endif
    od
}

init {
    atomic { stands[A] = 1; run World(); run Nodes(); run Engine() }
}
