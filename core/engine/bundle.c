#include "engine/bundle.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "base/mutant.h"
#include "engine/command.h"
#include "engine/script.h"

enum {
    PART_MOST = 2 * 1024,   /* bytes of a request: larger ones cost more than the script spares */
    BYTES_MOST = 16 * 1024, /* of a bundle: those of its arguments move for every key */
    HEAD_ROOM = 128,
    ARGUMENTS = 3 /* of a key: lease, value, ttl */
};

void rc_bundle_greet(struct rc_bundle *bundle)
{
    memset(bundle, 0, sizeof *bundle);
}

/* Where the key of an EVALSHA of one key begins, and where its arguments begin. They end with the
   request. */
struct part {
    const char *key, *arguments, *end;
};

static bool read_part(struct part *part, const char *bytes, size_t len)
{
    struct rc_command_reader reader = {bytes, bytes + len};
    struct rc_command command;
    struct rc_command_word sha, keys, key;
    if (!rc_command_open(&reader, &command) || !rc_command_is_word(command.name, "EVALSHA") ||
        !rc_command_next_word(&reader, &sha) || !rc_command_next_word(&reader, &keys) ||
        !rc_command_is_word(keys, "1"))
        return false;
    part->key = reader.at;
    part->end = reader.end;
    if (!rc_command_next_word(&reader, &key))
        return false;
    part->arguments = reader.at;
    return true;
}

bool rc_bundle_takes(const struct rc_bundle *bundle, size_t len)
{
    return !bundle->is_off && len <= PART_MOST;
}

void rc_bundle_begin(struct rc_bundle *bundle, const char *bytes, size_t len)
{
    struct part part;
    if (!read_part(&part, bytes, len))
        return;
    bundle->count = 1;
    bundle->head_len = (size_t)(part.key - bytes);
    bundle->keys_len = (size_t)(part.arguments - part.key);
    bundle->len = len;
}

static size_t write_head(char head[HEAD_ROOM], uint32_t count)
{
    int len = snprintf(head, HEAD_ROOM, "*%u\r\n$7\r\nEVALSHA\r\n$40\r\n%s\r\n$%d\r\n%u\r\n",
                       (unsigned)(3 + count * (1 + ARGUMENTS)),
                       rc_script_sha(RC_SCRIPT_PUBLISH_MANY), count < 10 ? 1 : 2, (unsigned)count);
    assert(len > 0 && len < HEAD_ROOM);
    return (size_t)len;
}

/* The first of a connection brings the source. Without memory for it the server's error asks. */
static void send_source(struct rc_bundle *bundle, struct rc_buf *output)
{
    struct rc_buf full;
    size_t start = output->end - bundle->len;
    rc_buf_init(&full);
    int error =
        rc_script_as_eval(&full, RC_SCRIPT_PUBLISH_MANY, output->bytes + start, bundle->len);
    if (error == 0)
        error = rc_buf_reserve(output, rc_buf_len(&full));
    if (error == 0) {
        output->end -= bundle->len;
        (void)rc_buf_append(output, rc_buf_head(&full), rc_buf_len(&full)); /* there is room */
        bundle->is_known = true;
        rc_bundle_close(bundle);
    }
    rc_buf_deinit(&full);
}

int rc_bundle_add(struct rc_bundle *bundle, struct rc_buf *output, const char *bytes, size_t len,
                  bool *is_part)
{
    char head[HEAD_ROOM];
    struct part part;
    *is_part = false;
    if (bundle->count == 0 || bundle->count == RC_BUNDLE_MOST || bundle->len + len > BYTES_MOST ||
        !read_part(&part, bytes, len))
        return 0;
    size_t key_len = (size_t)(part.arguments - part.key);
    size_t arguments_len = (size_t)(part.end - part.arguments);
    size_t head_len = write_head(head, bundle->count + 1);
    if (rc_buf_reserve(output, HEAD_ROOM + key_len + arguments_len) != 0)
        return RC_ERR_NOMEM;
    char *start = output->bytes + output->end - bundle->len;
    char *keys = start + bundle->head_len, *arguments = keys + bundle->keys_len;
    size_t old_len = bundle->len - bundle->head_len - bundle->keys_len;
    memmove(start + head_len + bundle->keys_len + key_len, arguments, old_len);
    if (head_len != bundle->head_len)
        memmove(start + head_len, keys, bundle->keys_len);
    memcpy(start, head, head_len);
    memcpy(start + head_len + bundle->keys_len, part.key, key_len);
    memcpy(start + head_len + bundle->keys_len + key_len + old_len, part.arguments, arguments_len);
    struct rc_bundle before = *bundle;
    bundle->count++;
    bundle->head_len = head_len;
    bundle->keys_len += key_len;
    bundle->len = head_len + bundle->keys_len + old_len + arguments_len;
    output->end = output->end - before.len + bundle->len;
    *is_part = true;
    if (!bundle->is_known)
        send_source(bundle, output);
    return 0;
}

void rc_bundle_read(struct rc_bundle *bundle, const rc_node *answer, uint32_t count,
                    bool stored[RC_BUNDLE_MOST])
{
    bool is_told = answer->type == '$' && answer->len == count;
    if (answer->type == '-')
        bundle->is_known = false; /* the source may not have arrived, or is forgotten */
    if (rc_reply_is_error(answer, "ERR ") || rc_reply_is_error(answer, "NOPERM ") ||
        rc_reply_is_error(answer, "CROSSSLOT "))
        bundle->is_off = true;
    for (uint32_t i = 0; i < count; i++)
        stored[i] = is_told && (answer->str[i] == '1' || RC_MUTANT(BUNDLE_ALL_STORED));
}
