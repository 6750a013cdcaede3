#include "store/names.h"

#include <string.h>

enum { HEAD = 2 * sizeof(uint32_t) };

void rc_names_init(struct rc_names *names)
{
    rc_buf_init(&names->bytes);
    names->count = 0;
}

void rc_names_deinit(struct rc_names *names)
{
    rc_buf_deinit(&names->bytes);
    names->count = 0;
}

void rc_names_clear(struct rc_names *names)
{
    rc_names_deinit(names);
    rc_names_init(names);
}

bool rc_names_next(const struct rc_names *names, size_t *at, uint32_t *mark, struct rc_text *name)
{
    uint32_t head[2];
    const char *bytes = rc_buf_head(&names->bytes);
    if (*at == rc_buf_len(&names->bytes))
        return false;
    memcpy(head, bytes + *at, HEAD);
    *mark = head[0];
    *name = (struct rc_text){bytes + *at + HEAD, head[1]};
    *at += HEAD + head[1];
    return true;
}

/* Where it begins and ends. False: it is not there. */
static bool find(const struct rc_names *names, uint32_t mark, struct rc_text name, size_t *start,
                 size_t *end)
{
    struct rc_text found;
    uint32_t its;
    *start = *end = 0;
    while (rc_names_next(names, end, &its, &found)) {
        if (its == mark && rc_text_equal(found, name))
            return true;
        *start = *end;
    }
    return false;
}

bool rc_names_has(const struct rc_names *names, uint32_t mark, struct rc_text name)
{
    size_t start, end;
    return names->count > 0 && find(names, mark, name, &start, &end);
}

int rc_names_add(struct rc_names *names, uint32_t mark, struct rc_text name)
{
    uint32_t head[2] = {mark, (uint32_t)name.len};
    if (rc_names_has(names, mark, name))
        return 0;
    int error = rc_buf_reserve(&names->bytes, HEAD + name.len);
    if (error != 0)
        return error;
    (void)rc_buf_append(&names->bytes, head, HEAD); /* there is room */
    (void)rc_buf_append(&names->bytes, name.bytes, name.len);
    names->count++;
    return 0;
}

bool rc_names_remove(struct rc_names *names, uint32_t mark, struct rc_text name)
{
    size_t start, end;
    struct rc_buf *bytes = &names->bytes;
    if (names->count == 0 || !find(names, mark, name, &start, &end))
        return false;
    char *first = bytes->bytes + bytes->start;
    memmove(first + start, first + end, rc_buf_len(bytes) - end);
    bytes->end -= end - start;
    names->count--;
    return true;
}
