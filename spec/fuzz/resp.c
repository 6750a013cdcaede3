/*
 * Any bytes as the answers of a server, into an engine whose requests are under way.
 *
 * The first byte says how it begins (enum beginning), the second into which pieces the answers are
 * split. Of what follows, a byte EVENT and its verb (and detail) make something happen; everything
 * else is said by the server, over the link of the last 'W' or 'T'.
 *
 * An input may not crash the engine, make it turn in a circle or hold more than a multiple of what
 * it was fed; a link takes what it is fed or gives the connection up; every op ends once.
 */
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>

#include "engine/command.h"
#include "engine/flight.h"
#include "fuzz.h"
#include "near/near_own.h"
#include "test/peer.h"

enum { EVENT = 0xF5, OPS = 8, KEYS = 4 };

enum beginning {
    IS_CONNECTED = 1, /* the handshakes are done, properly */
    HAS_NEAR = 2,
    HAS_LOGIN = 4, /* user, password and database */
    IS_LOADING = 8 /* a server that loads its data answers what it is asked */
};

static struct peer_server server;
static struct peer_client client;
static struct peer_op ops[OPS];
static bool is_under_way[OPS]; /* started, and not yet seen to be finished */
static struct rc_lock lock;
static struct rc_near *near; /* NULL: this input has none */
static _Atomic int64_t near_clock_us;
static enum rc_link_role role; /* whose link the server speaks over */
static uint32_t pieces;
static size_t fed; /* bytes */

/* ---- what holds ------------------------------------------------------------------------------ */

static size_t reply_room(const struct rc_reply *reply)
{
    return reply->room * sizeof(rc_node) + reply->arena.room;
}

static void check_requests(const struct rc_link *link)
{
    uint32_t count = 0;
    size_t bytes = 0;
    RC_LIST_EACH(place, following, &link->in_flight) {
        bytes += RC_CONTAINER(place, struct rc_req, place)->held_bytes;
        count++;
    }
    RC_LIST_EACH(place, following, &link->queue) {
        bytes += RC_CONTAINER(place, struct rc_req, place)->held_bytes;
        count++;
    }
    FUZZ_CHECK(link->request_count == count && link->held_bytes == bytes);
}

/* Right behind a feed. */
static void check_link(const struct rc_link *link)
{
    /* The shortest element has 3 bytes ("_\r\n") and a node of 40; room grows by doubling. */
    enum { PER_BYTE = 64, AT_FIRST = 4096 };
    const struct rc_resp *resp = &link->resp;
    bool is_up = link->state == RC_LINK_HANDSHAKE || link->state == RC_LINK_READY;
    FUZZ_CHECK(is_up != link->wants_close && !(is_up && resp->failed));
    FUZZ_CHECK(reply_room(&resp->reply) + reply_room(&resp->push) + resp->input.room <=
               PER_BYTE * fed + AT_FIRST);
    check_requests(link);
}

static void check_result(const struct rc_op *op)
{
    const rc_result *result = &op->result;
    const volatile char *data = result->data;
    for (size_t i = 0; i < result->len; i++)
        (void)data[i]; /* it may all be read */
    FUZZ_CHECK(result->status <= 0 && result->status >= RC_ERR_DESCRIPTORS);
    FUZZ_CHECK(result->status != 0 || result->outcome != RC_HIT ||
               !rc_entry_is_absent(result->kind));
}

static void look_at_ops(void)
{
    for (int i = 0; i < OPS; i++) {
        FUZZ_CHECK(ops[i].finished <= 1);
        if (!is_under_way[i] || ops[i].finished == 0)
            continue;
        is_under_way[i] = false;
        check_result(&ops[i].op);
    }
}

static const char *const keys[KEYS] = {"a", "b", "c", ""};

/* ---- what the callers do --------------------------------------------------------------------- */

/* A slot that is free, or whose load is to be ended. NULL: none. */
static struct peer_op *find_slot(bool leads)
{
    for (int i = 0; i < OPS; i++) {
        if (is_under_way[i] || ops[i].op.run.leads != leads)
            continue;
        is_under_way[i] = true;
        ops[i].op.ask.tag = (uint64_t)i + 1;
        return &ops[i];
    }
    return NULL;
}

static void end_load(uint8_t verb, uint8_t detail)
{
    struct peer_op *op = find_slot(true);
    if (op == NULL)
        return;
    if (verb == 'p')
        peer_publish(&client, op, "loaded", detail & 1 ? 1000 : -1, detail & 2 ? 500 : 0);
    else if (verb == 'f')
        peer_fail(&client, op, "failed", detail & 1 ? 1000 : 0);
    else
        peer_release(&client, op);
}

static void use_lock(uint8_t verb, uint8_t detail)
{
    struct peer_op *op = find_slot(false);
    if (op == NULL)
        return;
    uint32_t flags = (detail & 1 ? RC_FORCE : 0) | (detail & 4 ? RC_NO_RENEW : 0);
    if (verb == 'a')
        peer_acquire(&client, op, &lock, flags, 1000, detail & 2 ? 500 : 0, detail & 8 ? 600 : 0);
    else if (verb == 'u')
        peer_unlock(&client, op, &lock);
    else
        peer_extend(&client, op, &lock, 2000);
}

/* As rc_view_load: what it finds is kept near. */
static void load_near(struct peer_op *peer_op, const char *key, uint32_t flags)
{
    struct rc_op *op = &peer_op->op;
    rc_op_reset(op, RC_OP_LOAD);
    peer_op->finished = 0;
    op->ask.near = true;
    op->ask.near_ttl_us = flags & RC_FRESH ? 100000 : 0;
    op->ask.flags = flags;
    op->ask.load = (rc_load_options){0, 1000, 5000, 2000};
    op->ask.expect = 2;
    op->ask.purpose = RC_FLIGHT_LOAD;
    rc_buf_clear(&op->ask.key);
    FUZZ_CHECK(rc_buf_append(&op->ask.key, key, strlen(key)) == 0);
    rc_engine_submit(&client.engine, op);
}

static void start_op(uint8_t verb, uint8_t detail)
{
    const char *key = keys[detail % KEYS];
    unsigned way = detail / KEYS;
    struct peer_op *op = find_slot(false);
    if (op == NULL)
        return;
    switch (verb) {
    case 'g': peer_get(&client, op, key, way & 1 ? RC_WANT_TTL : 0); break;
    case 'n': peer_read(&client, op, key, way & 1 ? RC_FRESH : 0); break;
    case 's': peer_set(&client, op, key, "value", way & 1 ? 1000 : -1); break;
    case 'd': peer_delete(&client, op, key); break;
    case 'b': peer_barrier(&client, op); break;
    case 'm': load_near(op, key, way & 1 ? RC_FRESH : 0); break;
    default:
        peer_load(&client, op, key, way & (RC_WANT_TTL | RC_SCRIPT_FIRST | RC_STRICT | RC_PUT),
                  1000, 5000, 2000);
    }
}

/* The slot goes away, and is one for somebody else then. */
static void drop_op(uint8_t detail)
{
    struct peer_op *op = &ops[detail % OPS];
    rc_engine_drop(&client.engine, &op->op);
    is_under_way[detail % OPS] = false;
    FUZZ_CHECK(!op->op.run.is_running && !op->op.run.leads);
}

static void read_near(uint8_t detail)
{
    char buffer[64];
    const char *key = keys[detail % KEYS];
    rc_near_value value = {.buffer = buffer, .capacity = sizeof buffer};
    if (near == NULL)
        return;
    int found = rc_near_lookup(near, NULL, 0, key, strlen(key), 1000000, &value);
    FUZZ_CHECK(found != RC_NEAR_HIT || !rc_entry_is_absent(value.kind));
    FUZZ_CHECK(found != RC_NEAR_HIT || rc_near_is_valid(near, &value.handle, 1000000));
}

/* ---- what the server and the network do ------------------------------------------------------ */

static void say(const uint8_t *bytes, size_t len)
{
    struct peer_conn *conn = client.conns[role];
    while (len > 0 && conn->is_open && !conn->link->wants_close) {
        size_t piece = fuzz_piece(&pieces, len);
        fed += piece;
        rc_link_feed(conn->link, (const char *)bytes, piece);
        check_link(conn->link);
        bytes += piece;
        len -= piece;
    }
    peer_run(&server);
}

static void set_mute(bool mute)
{
    for (int i = 0; i < RC_LINK_ROLES; i++)
        client.conns[i]->mute = mute;
}

/* The server does what it was asked and says what Redis would say. */
static void answer_properly(void)
{
    set_mute(false);
    peer_run(&server);
    set_mute(true);
}

static void pass_time(int64_t ms)
{
    server.now_us += ms * 1000;
    atomic_store_explicit(&near_clock_us, server.now_us, memory_order_relaxed);
}

static void do_event(struct fuzz_input *input)
{
    uint8_t verb = fuzz_byte(input);
    switch (verb) {
    case 'T':
        role = RC_LINK_T;
        rc_link_want(client.conns[role]->link);
        break;
    case 'W': role = RC_LINK_W; break;
    case 'x': peer_cut(client.conns[role], false); break;
    case 'c': client.conns[role]->clogged = !client.conns[role]->clogged; break;
    case 'w': answer_properly(); break;
    case 't': pass_time(8 * (int64_t)fuzz_byte(input)); break;
    case 'v': read_near(fuzz_byte(input)); break;
    case 'k': (void)rc_engine_cancel(&client.engine, 1 + fuzz_byte(input) % OPS); break;
    case 'o': drop_op(fuzz_byte(input)); break;
    case 'q': rc_engine_drop_lock(&client.engine, &lock); break;
    case 'p':
    case 'f':
    case 'r': end_load(verb, fuzz_byte(input)); break;
    case 'a':
    case 'u':
    case 'e': use_lock(verb, fuzz_byte(input)); break;
    case 'g':
    case 'n':
    case 's':
    case 'd':
    case 'b':
    case 'm':
    case 'l': start_op(verb, fuzz_byte(input)); break;
    default: break;
    }
    peer_run(&server);
}

/* ---- life ------------------------------------------------------------------------------------ */

/* To map a region takes longer than most inputs do. So there is one, and each input finds it as it
   was when it was new. */
static struct rc_near *renew_near(void)
{
    static const struct rc_mix_seed seed = {
        {0x9e3779b97f4a7c15, 0xbf58476d1ce4e5b9, 0x94d049bb133111eb, 0x2545f4914f6cdd1d}};
    static struct rc_near *region;
    static char fresh[RC_NEAR_MIN_BYTES];
    struct rc_near_options options = {
        .bytes = sizeof fresh, .seed = &seed, .clock = &near_clock_us};
    const char *why;
    if (region == NULL) {
        FUZZ_CHECK(rc_near_open(&region, &options, &why) == 0);
        memcpy(fresh, region->region.base, sizeof fresh);
    }
    memcpy(region->region.base, fresh, sizeof fresh);
    return region;
}

static void set_up(uint8_t beginning)
{
    static struct peer_server fresh;
    if (fresh.now_us == 0)
        peer_init(&fresh); /* once: the SHAs of the scripts take longer than most inputs */
    server = fresh;
    pass_time(0);
    near = beginning & HAS_NEAR ? renew_near() : NULL;
    peer_open_near(&client, &server, NULL, near);
    if (beginning & HAS_LOGIN)
        peer_use(&client, "redis://me:secret@127.0.0.1/2");
    for (int i = 0; i < OPS; i++) {
        peer_op_init(&ops[i]);
        is_under_way[i] = false;
    }
    FUZZ_CHECK(rc_lock_init(&lock, "lock", 4) == 0);
    server.loading = (beginning & IS_LOADING) != 0;
    role = RC_LINK_W;
    fed = 0;
    set_mute((beginning & IS_CONNECTED) == 0);
    rc_link_want(client.conns[RC_LINK_W]->link);
    if (near != NULL)
        rc_link_want(client.conns[RC_LINK_T]->link);
    peer_run(&server);
    set_mute(true);
}

static void take_down(void)
{
    peer_close(&client);
    look_at_ops();
    FUZZ_CHECK(!server.went_round && client.engine.context.stats.in_flight == 0);
    for (int i = 0; i < OPS; i++) {
        FUZZ_CHECK(!is_under_way[i]);
        peer_op_deinit(&ops[i]);
    }
    rc_lock_deinit(&lock);
    peer_deinit(&server);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    struct fuzz_input input = {bytes, bytes + len};
    set_up(fuzz_byte(&input));
    pieces = fuzz_byte(&input);
    while (fuzz_left(&input) > 0) {
        const uint8_t *event = memchr(input.at, EVENT, fuzz_left(&input));
        const uint8_t *until = event != NULL ? event : input.end;
        if (until > input.at)
            say(input.at, (size_t)(until - input.at));
        input.at = until;
        if (event != NULL) {
            input.at++;
            do_event(&input);
        }
        look_at_ops();
    }
    take_down();
    return 0;
}
