#include "driver/sim/gate.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/slot.h"
#include "store/key.h"

enum { FIRST_PORT = 7000, ALL_KEYS = 1000 /* more than there are */ };

/* ---- places ---------------------------------------------------------------------------------- */

void sim_gate_name(int place, char name[8])
{
    if (place < SIM_KEYS)
        snprintf(name, 8, "k%d", place % 10);
    else
        snprintf(name, 8, "lock%d", (place - SIM_KEYS) % 10);
}

static uint16_t slot_of_place(int place)
{
    char name[8];
    sim_gate_name(place, name);
    return rc_slot(name, strlen(name));
}

/* The slots up to its own that no other place before it has; the last place has the rest. */
void sim_gate_init(struct sim_world *world)
{
    int *sorted = world->sorted;
    for (int place = 0; place < SIM_PLACES; place++) {
        int at = place;
        for (; at > 0 && slot_of_place(sorted[at - 1]) > slot_of_place(place); at--)
            sorted[at] = sorted[at - 1];
        sorted[at] = place;
    }
    for (int i = 0; i < SIM_PLACES; i++)
        world->last_slots[i] = slot_of_place(sorted[i]);
    world->last_slots[SIM_PLACES - 1] = RC_SLOT_COUNT - 1;
}

int sim_gate_place(const struct sim_world *world, uint16_t slot)
{
    int i = 0;
    while (world->last_slots[i] < slot)
        i++;
    return world->sorted[i];
}

struct sim_node *sim_gate_find(struct sim_world *world, const struct rc_address *address)
{
    return world->is_cluster ? &world->nodes[address->port - FIRST_PORT] : world->shards[0].master;
}

void sim_gate_url(const struct sim_node *node, char url[32])
{
    if (node->world->is_cluster)
        snprintf(url, 32, "redis://simulated:%d", FIRST_PORT + node->number);
    else
        snprintf(url, 32, "redis://simulated:6379");
}

bool sim_gate_has_key(const struct sim_node *node, const char *name, size_t len)
{
    const struct rc_key *key = rc_key_peek(node->store, 0, (struct rc_text){name, len});
    return key != NULL && !rc_key_is_over(node->store, key);
}

struct sim_node *sim_gate_owner(const struct sim_world *world, int place)
{
    char name[8];
    struct sim_node *holder = world->holders[place], *heir = world->moves[place].heir;
    if (world->is_cluster && (holder->is_down || holder->beliefs[place].owner != holder->number))
        return NULL;
    sim_gate_name(place, name);
    return heir == NULL || sim_gate_has_key(holder, name, strlen(name)) ? holder : heir;
}

bool sim_gate_is_moving(const struct sim_node *node)
{
    for (int place = 0; place < SIM_PLACES; place++)
        if (node->world->moves[place].heir != NULL && sim_world_has(node, place))
            return true;
    return false;
}

/* ---- answers --------------------------------------------------------------------------------- */

__attribute__((format(printf, 2, 3))) static void say(const struct sim_wire *wire,
                                                      const char *format, ...)
{
    char text[256];
    va_list arguments;
    va_start(arguments, format);
    int len = vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    sim_must(rc_buf_append(&wire->peer->output, text, (size_t)len));
}

static void tell_server(const struct sim_wire *wire, int number)
{
    say(wire, "*3\r\n$9\r\nsimulated\r\n:%d\r\n$40\r\n%040d\r\n", FIRST_PORT + number, number + 1);
}

/* The other one of a master's shard is taken for its replica, whatever it is now. */
static void tell_range(const struct sim_wire *wire, int first, int last, int owner)
{
    bool names_replica = wire->world->asks_replicas;
    say(wire, "*%d\r\n:%d\r\n:%d\r\n", names_replica ? 4 : 3, first, last);
    tell_server(wire, owner);
    if (names_replica)
        tell_server(wire, owner ^ 1);
}

/* Ranges of one owner that lie side by side are told as one. */
static void tell_slots(const struct sim_wire *wire)
{
    const struct sim_world *world = wire->world;
    const struct sim_belief *beliefs = wire->node->beliefs;
    int count = 0;
    for (int pass = 0; pass < 2; pass++) {
        if (pass == 1)
            say(wire, "*%d\r\n", count);
        for (int i = 0; i < SIM_PLACES; i++) {
            int owner = beliefs[world->sorted[i]].owner;
            int first = i == 0 ? 0 : world->last_slots[i - 1] + 1;
            while (i + 1 < SIM_PLACES && beliefs[world->sorted[i + 1]].owner == owner)
                i++;
            count += owner != SIM_NOBODY && pass == 0;
            if (owner != SIM_NOBODY && pass == 1)
                tell_range(wire, first, world->last_slots[i], owner);
        }
    }
}

static void tell_info(const struct sim_wire *wire)
{
    const struct sim_node *node = wire->node;
    int64_t own_epoch = 0;
    char text[256];
    for (int place = 0; place < SIM_PLACES; place++)
        if (node->beliefs[place].owner == node->number && node->beliefs[place].epoch > own_epoch)
            own_epoch = node->beliefs[place].epoch;
    int len = snprintf(text, sizeof(text),
                       "cluster_state:%s\r\ncluster_slots_assigned:%d\r\ncluster_size:%d\r\n"
                       "cluster_current_epoch:%" PRId64 "\r\ncluster_my_epoch:%" PRId64 "\r\n",
                       node->is_down ? "fail" : "ok", RC_SLOT_COUNT, wire->world->shard_count,
                       node->epoch, own_epoch);
    say(wire, "=%d\r\ntxt:%s\r\n", len + 4, text);
}

/* The store knows of no cluster. */
static void say_cluster(struct rc_buf *output, size_t from)
{
    static const char store[] = "$10\r\nstandalone\r\n", cluster[] = "$7\r\ncluster\r\n";
    struct rc_buf told;
    const char *text = rc_buf_head(output);
    size_t len = rc_buf_len(output), at = from;
    while (at + sizeof(store) - 1 <= len && memcmp(text + at, store, sizeof(store) - 1) != 0)
        at++;
    if (at + sizeof(store) - 1 > len)
        return;
    rc_buf_init(&told);
    sim_must(rc_buf_append(&told, text, at));
    sim_must(rc_buf_append(&told, cluster, sizeof(cluster) - 1));
    at += sizeof(store) - 1;
    sim_must(rc_buf_append(&told, text + at, len - at));
    rc_buf_swap(&told, output);
    rc_buf_deinit(&told);
}

/* ---- keys ------------------------------------------------------------------------------------ */

struct keys {
    const struct rc_text *names;
    uint32_t count;
};

/* Of the commands that a client of ours, or a foreign one, sends here. */
static struct keys keys_of(const struct sim_wire *wire)
{
    static const char without[] = " auth client command config dbsize echo flushall flushdb hello "
                                  "info ping quit readonly reset script select time wait ";
    static const char many[] = " del exists mget touch unlink ";
    const struct rc_text *args = wire->request.args;
    uint32_t count = wire->request.count;
    int64_t number = 0;
    if (count < 2 || rc_text_is_among(without, args[0]))
        return (struct keys){NULL, 0};
    if (!rc_text_is(args[0], "EVAL") && !rc_text_is(args[0], "EVALSHA"))
        return (struct keys){args + 1, rc_text_is_among(many, args[0]) ? count - 1 : 1};
    bool has_keys =
        count > 3 && rc_text_to_int(args[2], &number) && number > 0 && number <= (int64_t)count - 3;
    return has_keys ? (struct keys){args + 3, (uint32_t)number} : (struct keys){NULL, 0};
}

struct look {
    uint16_t slot;
    bool is_one_slot;
    bool are_several; /* different keys */
    uint32_t there, missing;
};

static struct look look_at(const struct sim_node *node, struct keys keys)
{
    struct look look = {.slot = rc_slot(keys.names[0].bytes, keys.names[0].len),
                        .is_one_slot = true};
    for (uint32_t i = 0; i < keys.count; i++) {
        const struct rc_text *name = &keys.names[i];
        look.is_one_slot &= rc_slot(name->bytes, name->len) == look.slot;
        look.are_several |= !rc_text_equal(*name, keys.names[0]);
        bool is_there = sim_gate_has_key(node, name->bytes, name->len);
        look.there += is_there;
        look.missing += !is_there;
    }
    return look;
}

static bool is_read(const struct sim_wire *wire)
{
    return rc_text_is_among(" exists get mget pttl ", wire->request.args[0]);
}

/* Whether the node itself does a command with these keys. Else it has said what is to be done. */
static bool takes(const struct sim_wire *wire, struct keys keys, bool asks)
{
    const struct sim_node *node = wire->node;
    const struct look look = look_at(node, keys);
    int place = sim_gate_place(wire->world, look.slot);
    const struct sim_node *heir = wire->world->moves[place].heir;
    bool leaves = heir != NULL && wire->world->holders[place] == node;
    int owner = node->beliefs[place].owner;
    bool is_replicas = wire->is_readonly && !sim_world_is_master(node) &&
                       owner == (node->number ^ 1) && is_read(wire);
    if (!look.is_one_slot)
        say(wire, "-CROSSSLOT Keys in request don't hash to the same slot\r\n");
    else if (node->is_down)
        say(wire, "-CLUSTERDOWN The cluster is down\r\n");
    else if (owner == SIM_NOBODY)
        say(wire, "-CLUSTERDOWN Hash slot not served\r\n");
    else if ((owner == node->number && leaves && look.missing > 0 && look.there > 0) ||
             (heir == node && asks && look.are_several && look.missing > 0))
        say(wire, "-TRYAGAIN Multiple keys request during rehashing of slot\r\n");
    else if (owner == node->number && leaves && look.missing > 0)
        say(wire, "-ASK %d simulated:%d\r\n", look.slot, FIRST_PORT + heir->number);
    else if (owner != node->number && !is_replicas && !(heir == node && asks))
        say(wire, "-MOVED %d simulated:%d\r\n", look.slot, FIRST_PORT + owner);
    else
        return true;
    return false;
}

/* ---- commands -------------------------------------------------------------------------------- */

static void do_command_of_cluster(struct sim_wire *wire, const char *bytes, size_t len)
{
    const struct rc_text *args = wire->request.args;
    size_t before = rc_buf_len(&wire->peer->output);
    bool asks = wire->asks;
    wire->asks = false;
    if (wire->request.count > 0 && rc_text_is(args[0], "ASKING")) {
        wire->asks = true;
        say(wire, "+OK\r\n");
        return;
    }
    if (wire->request.count > 0 && rc_text_is(args[0], "READONLY")) {
        wire->is_readonly = true;
        say(wire, "+OK\r\n");
        return;
    }
    if (wire->request.count > 1 && rc_text_is(args[0], "CLUSTER")) {
        if (rc_text_is(args[1], "SLOTS"))
            tell_slots(wire);
        else
            tell_info(wire);
        return;
    }
    if (sim_gate_is_moving(wire->node))
        rc_store_sweep(wire->node->store, ALL_KEYS); /* a look at a key that is over deletes it */
    struct keys keys = wire->request.count > 0 ? keys_of(wire) : (struct keys){NULL, 0};
    if (keys.count > 0 && !takes(wire, keys, asks))
        return;
    bool is_hello = wire->request.count > 0 && rc_text_is(args[0], "HELLO");
    sim_must(rc_store_feed(wire->peer, bytes, len));
    if (is_hello)
        say_cluster(&wire->peer->output, before);
}

/* Whether a server that runs somebody's script has said so. A new connection is let in. */
static bool is_busy(const struct sim_wire *wire)
{
    static const char done[] = " auth client hello info select ";
    if (wire->node->busy_until_us <= wire->world->now_us || wire->request.count == 0 ||
        rc_text_is_among(done, wire->request.args[0]))
        return false;
    say(wire, "-BUSY Redis is busy running a script.\r\n");
    return true;
}

static void do_command(struct sim_wire *wire, const char *bytes, size_t len)
{
    if (is_busy(wire))
        return;
    if (wire->world->is_cluster)
        do_command_of_cluster(wire, bytes, len);
    else
        sim_must(rc_store_feed(wire->peer, bytes, len));
}

void sim_gate_feed(struct sim_wire *wire, const char *bytes, size_t len)
{
    struct rc_buf *input = &wire->input;
    sim_must(rc_buf_append(input, bytes, len));
    while (rc_buf_len(input) > 0 && !wire->peer->wants_close) {
        size_t used;
        int found = rc_request_read(&wire->request, rc_buf_head(input), rc_buf_len(input), &used);
        if (found == 0)
            return;
        sim_must(found < 0 ? found : 0);
        do_command(wire, rc_buf_head(input), used);
        rc_buf_consume(input, used);
    }
}
