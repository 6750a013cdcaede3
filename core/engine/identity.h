/*
 * identity - which server a connection leads to, and what that server is.
 *
 * What:    what HELLO and INFO say of a server: its kind, role, the id of this run of its process,
 *          and the id of its data's history (replication id). Two connections through one address
 *          may lead to two servers (a balancer, DNS that changed, a failover), and the server at
 *          the end of an open one may become a replica: comparing identities tells.
 * Threads: pure.
 * Memory:  plain structs.
 * Errors:  none: what a server does not tell (INFO may be forbidden) is not known, and what is not
 *          known proves nothing.
 * Not:     does not ask: link and horizon do, and hand the answers in.
 */
#ifndef RC_IDENTITY_H
#define RC_IDENTITY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "engine/resp.h"

enum rc_server_role { RC_SERVER_UNKNOWN, RC_SERVER_MASTER, RC_SERVER_REPLICA };
enum rc_server_mode { RC_SERVER_STANDALONE, RC_SERVER_SENTINEL, RC_SERVER_CLUSTER };

enum { RC_SERVER_ID_SIZE = 41 }; /* 40 hex digits; "": not known */

struct rc_identity {
    enum rc_server_role role;
    enum rc_server_mode mode;
    bool is_cut_off; /* a replica that does not hear its master now */
    char run_id[RC_SERVER_ID_SIZE];
    char history[RC_SERVER_ID_SIZE]; /* master_replid */
    char earlier[RC_SERVER_ID_SIZE]; /* master_replid2: the history this one goes on with */
};

/* What is kept of a server, to tell later whether another one has all that it had: a hash of each
   of its ids. 0: not known. */
struct rc_identity_mark {
    uint64_t run, history;
};

/* As HELLO names it: "standalone", "sentinel", "cluster". */
const char *rc_identity_mode_name(enum rc_server_mode mode);
/* Takes what HELLO's map says: role and mode. */
void rc_identity_read_hello(struct rc_identity *identity, const struct rc_reply *reply, size_t at);
/* Takes what the text of INFO says; what it does not speak of stays. */
void rc_identity_read_info(struct rc_identity *identity, const char *text, size_t len);

/* These are two different servers. */
bool rc_identity_differs(const struct rc_identity *a, const struct rc_identity *b);
struct rc_identity_mark rc_identity_mark(const struct rc_identity *identity);
/* Writes that `before` acknowledged may be missing in `now`: it is another process, or it has taken
   over another's data meanwhile. */
bool rc_identity_is_loss(const struct rc_identity_mark *before, const struct rc_identity *now);
/* `now` goes on with the data of `before`: it was its replica. */
bool rc_identity_is_heir(const struct rc_identity_mark *before, const struct rc_identity *now);
/* The server of an open connection is no longer what it was. NULL: it is; else what has changed. */
const char *rc_identity_change(const struct rc_identity *before, const struct rc_identity *now);

/* Writes the question whose answer rc_identity_read reads: INFO; or HELLO, where INFO is not
   allowed, which at least tells the role. */
int rc_identity_ask(struct rc_buf *out, const struct rc_identity *known);
/* Takes the answer that begins at the node `at`. An error answer changes nothing. */
void rc_identity_read(struct rc_identity *identity, const struct rc_reply *reply, size_t at);

#endif
