#include "engine/roster.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FIRST_MS = 250 }; /* enough for most servers; the others have it in the second round */

static struct rc_server_node *first_node(const struct rc_roster *roster)
{
    return rc_topology_at(roster->topology, 0);
}

/* Fisher and Yates. */
static void shuffle(struct rc_roster *roster)
{
    uint32_t count = roster->list->node_count;
    for (uint32_t i = 0; i < count; i++)
        roster->order[i] = (uint8_t)i;
    for (uint32_t i = count; i-- > 1;) {
        uint32_t j = (uint32_t)(rc_context_random(roster->context) % (i + 1));
        uint8_t other = roster->order[j];
        roster->order[j] = roster->order[i];
        roster->order[i] = other;
    }
}

static void take_next(struct rc_roster *roster, struct rc_address *address)
{
    rc_address_listed(address, roster->list, roster->order[roster->at]);
    roster->at = (roster->at + 1) % roster->list->node_count;
}

/* How long node 0's links may take; 0: as long as all others. */
static void set_patience(struct rc_roster *roster, int32_t connect_ms)
{
    RC_TOPOLOGY_EACH(link, roster->topology) {
        if (link->node == first_node(roster))
            link->connect_ms = connect_ms;
    }
}

/* The others that were on their way to the address that node 0 leaves. */
static void leave_address(struct rc_roster *roster, const struct rc_link *missed, bool hurries)
{
    RC_TOPOLOGY_EACH(link, roster->topology) {
        if (link->node != first_node(roster))
            continue;
        if (link != missed && !link->is_leaving)
            rc_link_give_up(link, missed->cause);
        if (hurries)
            rc_link_hurry(link);
    }
}

void rc_roster_on_missed(struct rc_roster *roster, struct rc_link *link)
{
    char cause[RC_TEXT_SIZE];
    struct rc_address address;
    struct rc_server_node *node = first_node(roster);
    if (roster->list == NULL || roster->is_moving || link->node != node ||
        link->state != RC_LINK_BACKOFF)
        return;
    snprintf(cause, sizeof cause, "'%.60s' of the url: %.180s", node->address.label, link->cause);
    memcpy(link->cause, cause, sizeof cause);
    bool is_round_over = ++roster->missed == roster->list->node_count;
    if (is_round_over) {
        roster->missed = 0;
        set_patience(roster, 0);
    }
    take_next(roster, &address);
    rc_node_reuse(node, &address);
    roster->is_moving = true; /* those that are given up miss, too */
    leave_address(roster, link, !is_round_over);
    roster->is_moving = false;
}

void rc_roster_on_ready(struct rc_roster *roster)
{
    if (roster->list == NULL)
        return;
    roster->missed = 0;
    set_patience(roster, 0);
}

struct rc_server_node *rc_roster_next(struct rc_roster *roster)
{
    struct rc_server_node *node = NULL;
    uint32_t count = roster->list != NULL ? roster->list->node_count : 0;
    for (uint32_t i = 0; i < count; i++) {
        struct rc_address address;
        take_next(roster, &address);
        int number = rc_topology_find(roster->topology, address.host, address.port);
        if (number < 0)
            continue;
        node = rc_topology_at(roster->topology, (uint16_t)number);
        if (rc_node_command_link(node)->state != RC_LINK_BACKOFF)
            break;
    }
    return node;
}

/* ---- life ------------------------------------------------------------------------------------ */

int rc_roster_init(struct rc_roster *roster, struct rc_context *context,
                   struct rc_topology *topology)
{
    memset(roster, 0, sizeof *roster);
    roster->context = context;
    roster->topology = topology;
    struct rc_address *address = &first_node(roster)->address;
    if (address->node_count == 0)
        return 0;
    roster->list = malloc(sizeof *roster->list);
    if (roster->list == NULL)
        return RC_ERR_NOMEM;
    *roster->list = *address;
    shuffle(roster);
    take_next(roster, address);
    int32_t share_ms = context->options.connect_timeout_ms / (int32_t)roster->list->node_count;
    if (context->options.connect_timeout_ms > FIRST_MS)
        set_patience(roster, share_ms > FIRST_MS ? share_ms : FIRST_MS);
    return 0;
}

void rc_roster_deinit(struct rc_roster *roster)
{
    free(roster->list);
}
