/*
 * Any commands into the embedded store, over several connections and in any pieces.
 *
 * The first byte says how it begins (enum beginning), the second into which pieces the commands are
 * split. Of what follows, a byte EVENT and its verb (and detail) make something happen; everything
 * else is lines, each of them a command (see add_word for what its words stand for), or behind the
 * event '!' just bytes.
 *
 * An input may not crash the store or make it hold more than its bound; every answer is whole RESP
 * that our own reader takes; what a replica was told of is what its master holds, and counts the
 * same bytes.
 */
#include "store/store.h"

#include <stdbool.h>
#include <string.h>

#include "engine/command.h"
#include "engine/entry.h"
#include "engine/resp.h"
#include "engine/script.h"
#include "fuzz.h"

enum { EVENT = 0xF5, CONNS = 4, ELEMENTS_MAX = 4096, BULK_MAX = 1 << 20 };

enum beginning {
    IS_SMALL = 1, /* so that it has to evict */
    IS_LOADING = 2
};

struct peer {
    struct rc_store_conn *conn; /* NULL: not connected */
    struct rc_resp resp;
};

static struct rc_store *store, *replica;
static struct peer peers[CONNS];
static size_t max_bytes;
static int64_t now_us;
static uint32_t pieces;
static bool is_raw;

/* ---- what holds ------------------------------------------------------------------------------ */

/* All that came out is whole messages: behind them our own is read as one. */
static void read_output(struct peer *peer)
{
    static const char mark[] = "+mark\r\n";
    struct rc_buf *output = &peer->conn->output;
    enum rc_message message = RC_MESSAGE_REPLY;
    if (rc_buf_len(output) == 0)
        return;
    FUZZ_CHECK(rc_resp_feed(&peer->resp, rc_buf_head(output), rc_buf_len(output)) == 0);
    FUZZ_CHECK(rc_resp_feed(&peer->resp, mark, sizeof mark - 1) == 0);
    rc_buf_consume(output, rc_buf_len(output));
    for (bool is_mark = false; message != RC_MESSAGE_NONE;) {
        FUZZ_CHECK(rc_resp_next(&peer->resp, &message) == 0);
        FUZZ_CHECK(message != RC_MESSAGE_NONE || is_mark);
        if (message != RC_MESSAGE_REPLY)
            continue;
        rc_reply_resolve(&peer->resp.reply);
        const rc_node *node = &peer->resp.reply.nodes[0];
        is_mark = node->type == '+' && node->len == 4 && memcmp(node->str, "mark", 4) == 0;
        rc_reply_clear(&peer->resp.reply);
    }
}

static void check_bound(void)
{
    struct rc_store_stats stats;
    rc_store_read_stats(store, &stats);
    FUZZ_CHECK(max_bytes == 0 || stats.bytes <= max_bytes);
}

/* A sum over all keys, whatever their order. */
static void add_key(void *owner, const struct rc_store_change *change)
{
    const struct rc_seed seed = {{1, 2}};
    uint64_t *sum = owner;
    *sum += rc_siphash(&seed, change->key, change->key_len) * 3 +
            rc_siphash(&seed, change->value, change->value_len) * 5 +
            (uint64_t)change->expires_ms * 7 + change->database * 11 + 1;
}

/* Without connections: what they track is counted, too, and a replica has none. */
static void check_replica(void)
{
    struct rc_store_stats here, there;
    uint64_t here_sum = 0, there_sum = 0;
    rc_store_read_stats(store, &here);
    rc_store_read_stats(replica, &there);
    rc_store_each(store, add_key, &here_sum);
    rc_store_each(replica, add_key, &there_sum);
    FUZZ_CHECK(here.keys == there.keys && here_sum == there_sum);
    FUZZ_CHECK(here.bytes == there.bytes && (here.keys > 0 || here.bytes == 0));
}

/* ---- commands -------------------------------------------------------------------------------- */

/* A word is its bytes, but "#a" is the SHA of the first script and so on, and "@4x" an entry of
   kind 4 (a lease) whose nonce is eight times x; what follows is its payload. */
static int add_word(struct rc_buf *out, const uint8_t *word, size_t len)
{
    char header[RC_ENTRY_SIZE], nonce[RC_NONCE_SIZE];
    if (len == 2 && word[0] == '#' && word[1] >= 'a' && word[1] < 'a' + RC_SCRIPT_COUNT)
        return rc_command_text(out, rc_script_sha((enum rc_script)(word[1] - 'a')));
    if (len < 3 || word[0] != '@')
        return rc_command_bytes(out, word, len);
    memset(nonce, word[2], sizeof nonce);
    rc_entry_write_kind(header, word[1] - '0', 0, nonce);
    return rc_command_pair(out, header, sizeof header, word + 3, len - 3);
}

/* Encodes a line, whose words have one blank between them. */
static void add_command(struct rc_buf *out, const uint8_t *line, size_t len)
{
    uint32_t count = 1;
    for (size_t i = 0; i < len; i++)
        count += line[i] == ' ';
    int error = rc_command_head(out, count);
    for (; count > 0; count--) {
        const uint8_t *blank = len > 0 ? memchr(line, ' ', len) : NULL;
        size_t word = blank != NULL ? (size_t)(blank - line) : len;
        error |= add_word(out, line, word);
        line += word + (blank != NULL);
        len -= word + (blank != NULL);
    }
    FUZZ_CHECK(error == 0);
}

static void add_lines(struct rc_buf *out, const uint8_t *text, size_t len)
{
    while (len > 0) {
        const uint8_t *newline = memchr(text, '\n', len);
        size_t line = newline != NULL ? (size_t)(newline - text) : len;
        add_command(out, text, line);
        text += line + (newline != NULL);
        len -= line + (newline != NULL);
    }
}

static void read_all(void)
{
    for (int i = 0; i < CONNS; i++) {
        if (peers[i].conn != NULL)
            read_output(&peers[i]);
    }
    check_bound();
}

static void feed(struct peer *peer, const char *bytes, size_t len)
{
    while (len > 0 && !peer->conn->wants_close) {
        size_t piece = fuzz_piece(&pieces, len);
        FUZZ_CHECK(rc_store_feed(peer->conn, bytes, piece) == 0);
        read_all();
        bytes += piece;
        len -= piece;
    }
}

static void hang_up(struct peer *peer)
{
    if (peer->conn == NULL)
        return;
    rc_store_disconnect(peer->conn);
    rc_resp_deinit(&peer->resp);
    peer->conn = NULL;
}

static void connect_peer(struct peer *peer)
{
    if (peer->conn != NULL && peer->conn->wants_close)
        hang_up(peer);
    if (peer->conn != NULL)
        return;
    FUZZ_CHECK(rc_store_connect(store, &peer->conn) == 0);
    FUZZ_CHECK(rc_resp_init(&peer->resp, ELEMENTS_MAX, BULK_MAX) == 0);
}

static void say(struct peer *peer, const uint8_t *bytes, size_t len)
{
    struct rc_buf commands;
    if (len == 0)
        return;
    connect_peer(peer);
    if (is_raw) {
        feed(peer, (const char *)bytes, len);
        return;
    }
    rc_buf_init(&commands);
    add_lines(&commands, bytes, len);
    feed(peer, rc_buf_head(&commands), rc_buf_len(&commands));
    rc_buf_deinit(&commands);
}

/* ---- events ---------------------------------------------------------------------------------- */

static void set_time(int64_t unix_us)
{
    now_us = unix_us;
    rc_store_set_time(store, now_us);
    rc_store_set_time(replica, now_us);
}

static void do_event(struct fuzz_input *input, struct peer **speaker)
{
    uint8_t verb = fuzz_byte(input);
    switch (verb) {
    case '0':
    case '1':
    case '2':
    case '3':
        *speaker = &peers[verb - '0'];
        is_raw = false;
        break;
    case '!': is_raw = true; break;
    case 'x': hang_up(*speaker); break;
    case 't': set_time(now_us + 16000 * (int64_t)fuzz_byte(input)); break;
    case 'b': set_time(now_us - 16000 * (int64_t)fuzz_byte(input)); break;
    case 's': rc_store_sweep(store, fuzz_byte(input)); break;
    case 'i': rc_store_set_role(store, fuzz_byte(input) % (RC_STORE_LOADING + 1)); break;
    default: break;
    }
    read_all();
}

/* ---- life ------------------------------------------------------------------------------------ */

static void tell_replica(void *owner, const struct rc_store_change *change)
{
    (void)owner;
    FUZZ_CHECK(rc_store_apply(replica, change) == 0);
}

static void set_up(uint8_t beginning)
{
    struct rc_store_options options = {.seed = {{1, 2}}};
    if (!rc_script_is_known(0))
        rc_scripts_init();
    FUZZ_CHECK(rc_store_new(&replica, &options) == 0);
    rc_store_set_role(replica, RC_STORE_REPLICA);
    options.max_bytes = max_bytes = beginning & IS_SMALL ? 2000 : 0;
    options.on_change = tell_replica;
    FUZZ_CHECK(rc_store_new(&store, &options) == 0);
    set_time(INT64_C(1700000000) * 1000 * 1000);
    if (beginning & IS_LOADING)
        rc_store_set_role(store, RC_STORE_LOADING);
    is_raw = false;
}

static void take_down(void)
{
    for (int i = 0; i < CONNS; i++)
        hang_up(&peers[i]);
    check_replica();
    rc_store_free(store);
    rc_store_free(replica);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    struct fuzz_input input = {bytes, bytes + len};
    struct peer *speaker = &peers[0];
    set_up(fuzz_byte(&input));
    pieces = fuzz_byte(&input);
    while (fuzz_left(&input) > 0) {
        const uint8_t *event = memchr(input.at, EVENT, fuzz_left(&input));
        const uint8_t *until = event != NULL ? event : input.end;
        say(speaker, input.at, (size_t)(until - input.at));
        input.at = until;
        if (event != NULL) {
            input.at++;
            do_event(&input, &speaker);
        }
    }
    take_down();
    return 0;
}
