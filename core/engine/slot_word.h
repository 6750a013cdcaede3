/*
 * slot_word - what one node of a cluster answers when it is asked about the slots.
 *
 * What:    the question, CLUSTER SLOTS and CLUSTER INFO in one write; and its answer: the map, the
 *          cluster's epoch and the node's own, and whether the cluster works as far as that node
 *          sees.
 * Threads: pure.
 * Memory:  the map is the caller's.
 * Errors:  RC_ERR_NOMEM; an answer that is none says so.
 * Not:     believes nothing: cluster (which map is followed) and ownership (what the masters agree
 *          about) do.
 * Source:  CLUSTER SLOTS and CLUSTER INFO in the Redis documentation.
 */
#ifndef RC_SLOT_WORD_H
#define RC_SLOT_WORD_H

#include "engine/context.h"
#include "engine/slot_map.h"

struct rc_slot_word {
    bool is_answer; /* both were answered, and the map could be read */
    bool is_ok;     /* the node sees a majority of the masters: its map is no lonely one's, unless
                       the others have gone just now */
    int64_t epoch;  /* of the cluster, as far as it knows; -1: not told */
    int64_t own_epoch;      /* of the node: it changes when it takes slots over; -1: not told */
    const rc_node *refusal; /* why it does not tell; NULL: it does, or nothing has come */
};

/* A request with the question, which is not sent to anybody else. The caller sends it. NULL: no
   memory. */
struct rc_req *rc_slot_word_ask(struct rc_context *context);
/* The same for the node's own epoch alone, by CLUSTER INFO. */
struct rc_req *rc_slot_word_ask_epoch(struct rc_context *context);
/* The epoch that it answers; -1: it does not tell. */
int64_t rc_slot_word_read_epoch(int status, const struct rc_reply *reply);
/* Reads the answer, of that status, into the word and the map. */
void rc_slot_word_read(struct rc_slot_word *word, struct rc_slot_map *map, int status,
                       const struct rc_reply *reply);

#endif
