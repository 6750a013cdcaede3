#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/command.h"
#include "test/peer_own.h"

enum { ARGS_MAX = 128 };

/* SET key value IFEQ other [PX ms] */
static void do_set_ifeq(struct peer_server *server, struct peer_conn *conn, struct peer_arg *args,
                        int count)
{
    server->comparisons++;
    if (!server->compares) {
        peer_add(&conn->output, "-ERR syntax error\r\n");
        return;
    }
    const struct peer_key *old = peer_look(server, args[1]);
    bool is_equal = old->exists && peer_same(&old->value, args[4]);
    peer_add(&conn->output, is_equal ? "+OK\r\n" : "_\r\n");
    if (is_equal)
        peer_key_set(server, conn, args[1], args[2], count > 6 ? peer_number(args[6]) : -1);
}

static void do_delifeq(struct peer_server *server, struct peer_conn *conn, struct peer_arg *args)
{
    server->comparisons++;
    if (!server->compares) {
        peer_add(&conn->output, "-ERR unknown command 'DELIFEQ', with args beginning with: \r\n");
        return;
    }
    const struct peer_key *old = peer_look(server, args[1]);
    bool is_equal = old->exists && peer_same(&old->value, args[2]);
    peer_add_number(&conn->output, ':', is_equal ? peer_key_unlink(server, conn, args[1]) : 0);
}

/* SET key value [NX GET] [PX ms] */
static void do_set(struct peer_server *server, struct peer_conn *conn, struct peer_arg *args,
                   int count)
{
    bool nx = false;
    int64_t ttl_ms = -1;
    for (int i = 3; i < count; i++) {
        nx |= peer_is(args[i], "NX");
        if (peer_is(args[i], "PX"))
            ttl_ms = peer_number(args[++i]);
    }
    const struct peer_key *old = peer_look(server, args[1]);
    server->sets++;
    if (nx)
        peer_add_value(&conn->output, old->exists ? old : NULL);
    else
        peer_add(&conn->output, "+OK\r\n");
    if (!nx || !old->exists)
        peer_key_set(server, conn, args[1], args[2], ttl_ms);
}

static void say_hello(struct peer_server *server, struct rc_buf *out)
{
    peer_add(out, "%3\r\n$6\r\nserver\r\n");
    peer_add(out, server->is_valkey ? "$6\r\nvalkey\r\n" : "$5\r\nredis\r\n");
    peer_add(out, "$7\r\nversion\r\n");
    peer_add(out, server->is_valkey ? "$5\r\n9.1.0\r\n" : "$6\r\n7.0.15\r\n");
    peer_add(out, "$4\r\nrole\r\n");
    peer_add(out, server->is_replica ? "$7\r\nreplica\r\n" : "$6\r\nmaster\r\n");
}

static void say_info(struct peer_server *server, const struct peer_conn *conn, bool is_whole)
{
    char info[512] = "";
    int len = 0;
    if (is_whole)
        len = snprintf(info, sizeof info, "# Server\r\nrun_id:%040x\r\n", conn->run);
    len += snprintf(info + len, sizeof info - (size_t)len,
                    "# Replication\r\nrole:%s\r\nmaster_replid:%040x\r\nmaster_replid2:%040x\r\n",
                    server->is_replica ? "slave" : "master", server->history, server->earlier);
    peer_add_bulk(&server->conns[conn - server->conns].output, info, (size_t)len);
}

static const char WRONG[] = "-WRONGPASS invalid username-password pair or user is disabled.\r\n";

/* A user and a password. */
static bool lets_in(struct peer_server *server, const struct peer_arg *args)
{
    snprintf(server->user, sizeof server->user, "%.*s", (int)args[0].len, args[0].bytes);
    return server->login == NULL || peer_is(args[1], server->login);
}

/* And what is asked again and again: who are you? */
static bool do_handshake(struct peer_server *server, struct peer_conn *conn, struct peer_arg *args,
                         int count)
{
    if (peer_is(args[0], "AUTH")) {
        server->auths++;
        peer_add(&conn->output, lets_in(server, args + 1) ? "+OK\r\n" : WRONG);
    } else if (peer_is(args[0], "HELLO") && count > 4 && !lets_in(server, args + 3)) {
        server->hellos++;
        peer_add(&conn->output, WRONG);
    } else if (peer_is(args[0], "HELLO")) {
        server->hellos += count > 1;
        server->questions += count == 1;
        if (server->refusal != NULL)
            peer_add(&conn->output, server->refusal);
        else
            say_hello(server, &conn->output);
    } else if (peer_is(args[0], "INFO")) {
        server->questions++;
        if (server->no_info)
            peer_add(&conn->output, "-NOPERM no permissions to run it\r\n");
        else
            say_info(server, conn, count > 2);
    } else if (peer_is(args[0], "RESET")) {
        server->resets++;
        conn->tracks = false;
        peer_add(&conn->output,
                 server->no_reset ? "-NOPERM no permissions to run it\r\n" : "+RESET\r\n");
    } else if (peer_is(args[0], "SELECT")) {
        peer_add(&conn->output, "+OK\r\n");
    } else if (peer_is(args[0], "CLIENT")) {
        conn->tracks = !server->no_tracking;
        peer_add(&conn->output, conn->tracks ? "+OK\r\n" : "-NOPERM no permissions to run it\r\n");
    } else {
        return false;
    }
    return true;
}

static void execute(struct peer_server *server, struct peer_conn *conn, struct peer_arg *args,
                    int count)
{
    struct rc_buf *out = &conn->output;
    if (do_handshake(server, conn, args, count))
        return;
    server->commands += !peer_is(args[0], "PING");
    if (server->loading) {
        peer_add(out, "-LOADING Redis is loading the dataset in memory\r\n");
    } else if (server->errors > 0) {
        server->errors--;
        peer_add(out, server->error);
        peer_add(out, "\r\n");
    } else if (peer_is(args[0], "PING")) {
        peer_add(out, server->ping != NULL ? server->ping : "+PONG\r\n");
    } else if (peer_is(args[0], "GET")) {
        server->gets++;
        peer_add_value(out, peer_key_get(server, conn, args[1]));
    } else if (peer_is(args[0], "GETRANGE")) { /* from 0 */
        const struct peer_key *key = peer_key_get(server, conn, args[1]);
        size_t len = key != NULL ? rc_buf_len(&key->value) : 0;
        size_t limit = (size_t)peer_number(args[3]) + 1;
        server->ranges++;
        peer_add_bulk(out, len > 0 ? rc_buf_head(&key->value) : "", len < limit ? len : limit);
    } else if (peer_is(args[0], "PTTL")) {
        (void)peer_key_get(server, conn, args[1]); /* makes the server track it, as GET does */
        peer_add_number(out, ':', peer_key_pttl(server, args[1]));
    } else if (peer_is(args[0], "SET") && count > 4 && peer_is(args[3], "IFEQ")) {
        do_set_ifeq(server, conn, args, count);
    } else if (peer_is(args[0], "DELIFEQ")) {
        do_delifeq(server, conn, args);
    } else if (peer_is(args[0], "SET")) {
        do_set(server, conn, args, count);
    } else if (peer_is(args[0], "UNLINK")) {
        int deleted = 0;
        for (int i = 1; i < count; i++)
            deleted += peer_key_unlink(server, conn, args[i]);
        server->unlinks++;
        peer_add_number(out, ':', deleted);
    } else if (peer_is(args[0], "BLPOP")) {
        return; /* it waits */
    } else if (peer_is(args[0], "EVALSHA") || peer_is(args[0], "EVAL")) {
        peer_do_script(server, conn, args, count);
    } else {
        peer_add(out, "-ERR unknown command\r\n");
    }
}

bool peer_execute_next(struct peer_server *server, struct peer_conn *conn)
{
    struct peer_arg args[ARGS_MAX];
    const char *start = rc_buf_head(&conn->input);
    struct rc_command_reader reader = {start, start + rc_buf_len(&conn->input)};
    struct rc_command command;
    struct rc_command_word word;
    uint32_t count = 0;
    if (rc_buf_len(&conn->input) == 0)
        return false;
    if (*start != '*')
        abort(); /* the engine has written something that is no request */
    if (!rc_command_next(&reader, &command))
        return false;
    if (command.count > ARGS_MAX)
        abort();
    args[count++] = (struct peer_arg){command.name.bytes, command.name.len};
    while (rc_command_next_word(&command.rest, &word))
        args[count++] = (struct peer_arg){word.bytes, word.len};
    execute(server, conn, args, (int)count);
    rc_buf_consume(&conn->input, command.len);
    peer_must(rc_buf_append(&conn->output, rc_buf_head(&conn->later), rc_buf_len(&conn->later)));
    rc_buf_clear(&conn->later);
    return true;
}
