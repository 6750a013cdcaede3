/*
 * list - a doubly linked list whose links live inside the elements.
 *
 * What:    O(1) insert at either end and removal from the middle.
 * Threads: the owner of the list.
 * Memory:  owns nothing.
 * Errors:  none.
 * Not:     does not know what its elements are; RC_CONTAINER gets from a link to its element.
 */
#ifndef RC_LIST_H
#define RC_LIST_H

#include <stdbool.h>
#include <stddef.h>

struct rc_list {
    struct rc_list *next;
    struct rc_list *prev;
};

#define RC_CONTAINER(pointer, type, member)                                                        \
    ((type *)(void *)((char *)(pointer)-offsetof(type, member)))

/* Iterates; the current element may be removed in the body. */
#define RC_LIST_EACH(cursor, following, list)                                                      \
    for (struct rc_list *cursor = (list)->next, *following = cursor->next; cursor != (list);       \
         cursor = following, following = cursor->next)

static inline void rc_list_init(struct rc_list *list)
{
    list->next = list->prev = list;
}

static inline bool rc_list_is_empty(const struct rc_list *list)
{
    return list->next == list;
}

static inline void rc_list_append(struct rc_list *list, struct rc_list *link)
{
    link->prev = list->prev;
    link->next = list;
    list->prev->next = link;
    list->prev = link;
}

static inline void rc_list_prepend(struct rc_list *list, struct rc_list *link)
{
    rc_list_append(list->next, link);
}

/* Leaves the link empty, so that removing twice is harmless. */
static inline void rc_list_remove(struct rc_list *link)
{
    link->prev->next = link->next;
    link->next->prev = link->prev;
    rc_list_init(link);
}

/* Moves every element of `from` behind those of `to`. */
static inline void rc_list_splice(struct rc_list *to, struct rc_list *from)
{
    if (rc_list_is_empty(from))
        return;
    from->next->prev = to->prev;
    to->prev->next = from->next;
    from->prev->next = to;
    to->prev = from->prev;
    rc_list_init(from);
}

#endif
