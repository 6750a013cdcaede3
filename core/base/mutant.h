/*
 * mutant - known bugs that can be planted, to see that the simulator finds them.
 *
 * What:    RC_MUTANT(X) is false, and gone from the code, but in a build with RC_MUTANTS: there it
 *          is whether bug X was chosen. Each is a mistake that some cache has really made.
 * Threads: chosen once, before everything else.
 * Memory:  one global, in redcache-sim-mutants alone.
 * Errors:  none.
 * Not:     no library of ours is built with them: only redcache-sim-mutants is.
 */
#ifndef RC_MUTANT_H
#define RC_MUTANT_H

/* What it is called, and what the bug is. */
#define RC_MUTANTS_EACH(X)                                                                         \
    X(BLIND_SET, "a lease is set over whatever stands there")                                      \
    X(PUBLISH_ANY, "a load stores its value without comparing the token")                          \
    X(IFEQ_NEVER_LOST, "a publish that the server compares for counts as done, whatever it says")  \
    X(BUNDLE_ALL_STORED, "publishes that share a script count as done, whatever it says of each")  \
    X(TOKEN_PER_CLIENT, "all leases of a client have one token")                                   \
    X(SEPARATE_LOCK, "the lease stands in a key of its own, so a delete does not void it")         \
    X(REFRESH_ANY, "a refresh replaces any value, not only the one it saw")                        \
    X(COVER_ABSENT, "a refresh takes a value that was deleted for one that has expired")           \
    X(NO_LOCAL_TIMER, "waiters rely on the server to tell that a lease has run out")               \
    X(NO_FLUSH_ON_RECONNECT, "copies outlive the connection that kept them coherent")              \
    X(FILL_AFTER_INVALIDATION, "an answer is kept although the key changed behind it")             \
    X(NO_PURGE_AT_ACK, "an own write drops the copy at its start alone")                           \
    X(REPLAY_LATE_EPOCH, "a delete's server is noted too late, when it is another one")            \
    X(REPLAY_ANY, "a delete is sent again over a newer value")                                     \
    X(NOLOOP, "tracking with NOLOOP")                                                              \
    X(LATE_HEARTBEAT, "a lease is renewed a little later than it ends")                            \
    X(RETRY_WRITES, "a write that may have been done is sent again")                               \
    X(ASK_WITHOUT_ASKING, "a cluster: what ASK sends elsewhere goes without ASKING")               \
    X(MAP_STORM, "a cluster: each MOVED asks for the map, without a pause")                        \
    X(MAP_OLDER, "a cluster: a map of an older epoch is taken")                                    \
    X(MAP_OF_MINORITY, "a cluster: a map of a node that sees no majority is taken")                \
    X(RENEWED_ELSEWHERE, "a cluster: a renewal sent elsewhere counts, and nobody else is asked")   \
    X(OWNED_BY_PONG, "a cluster: a node that answers is taken for its slots' owner")               \
    X(NOTE_OF_DOUBTED, "a cluster: others hear of a node although its slots are in doubt")         \
    X(NOTE_OF_ANY_MAP, "a cluster: a word that another process got counts for any map")            \
    X(REPLAY_ELSEWHERE, "a cluster: a noted delete stays with the node that its slot has left")    \
    X(PUSH_BY_KEY, "a cluster: a push is taken to its key's node, and one of all to the first")    \
    X(EPOCH_PER_CLIENT, "a cluster: the copies of all nodes have one epoch, the first node's")     \
    X(COUNT_AGAIN, "a script is taken for what may be sent again, and a counter's is not")         \
    X(COUNT_WITHOUT_TTL, "a counter begins without its ttl")                                       \
    X(BOUND_BEFORE, "a counter's bounds are held by what it is, and not by what it will be")       \
    X(BOUND_KEPT, "an addition that is refused for its bounds stays in the counter")               \
    X(BOUND_BEGINS, "an addition that is refused begins its counter")                              \
    X(BOUND_TOLD, "an addition that is refused tells itself in place of the counter")              \
    X(REPLICA_WRITES, "a cluster: any batch goes to replicas first, and may be sent again")        \
    X(REPLICA_TOLD, "a cluster: what a replica refuses is told, and its master not asked")         \
    X(BROKEN_IS_UNDONE, "a request behind which the connection broke is said to be not done")      \
    X(REPEAT_WHOLE, "what a server has done goes again with what it has not")                      \
    X(ANSWERS_BY_NODE, "a cluster: a batch's answers stand in the order of its nodes")             \
    X(PART_IS_NIL, "a cluster: the part of a batch that fails answers nil, and no error")          \
    X(PART_IS_DONE, "a cluster: the part of a batch that fails answers OK, and no error")          \
    X(L0_REMEMBERED, "L0: what was found there once is served until its time is over")             \
    X(TAGS_AFTER_LOAD, "tags: the generations of a load are read behind its data")                 \
    X(TAGS_LOST_IS_HIT, "tags: an entry is served although the generations of a tag are gone")     \
    X(TAGS_COME_BACK, "tags: generations that were lost come back as they were")                   \
    X(TAGS_AT_FILL, "tags: only what is not known yet is checked, and never again")                \
    X(TAGS_REMEMBERED, "tags: an entry whose tags were valid once is not checked again")           \
    X(BREAKER_HASTY, "a breaker: each sign of life has the next probe sent at once")               \
    X(BREAKER_STUCK, "a breaker: good probes do not close it")                                     \
    X(BREAKER_LEAKS, "a breaker: callers are sent on while it is open")                            \
    X(BREAKER_BY_CALLERS, "a breaker: callers are its probes, as many as come")                    \
    X(BREAKER_ONE_GOOD, "a breaker: one good probe closes it")                                     \
    X(BREAKER_BLIND, "a breaker: it is never probed")                                              \
    X(BREAKER_OWN_PAUSE, "a breaker: that its own process stood still counts as the server's")     \
    X(BREAKER_WAITS, "a breaker: who is refused is told when the timeout is over")

#ifdef RC_MUTANTS

enum rc_mutant {
    RC_MUTANT_NONE,
#define RC_MUTANT_NAME(name, what) RC_MUTANT_##name,
    RC_MUTANTS_EACH(RC_MUTANT_NAME)
#undef RC_MUTANT_NAME
        RC_MUTANT_COUNT
};

extern enum rc_mutant rc_mutant; /* the one that is planted */
#define RC_MUTANT(name) (rc_mutant == RC_MUTANT_##name)

#else
#define RC_MUTANT(name) 0
#endif

#endif
