#include "store/request.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "redcache.h"

enum {
    LINE_MAX_BYTES = 64 * 1024, /* Redis' own limits, from here on */
    ARGS_MAX = INT32_MAX,
    BULK_MAX = 512 * 1024 * 1024,
    FIRST_ARGS = 8,
    KEEP_ARGS = 1024 /* room of a large command that does not stay */
};

void rc_request_init(struct rc_request *request)
{
    *request = (struct rc_request){.missing = -1, .bulk = -1};
}

void rc_request_deinit(struct rc_request *request)
{
    free(request->args);
    rc_request_init(request);
}

static int fail(struct rc_request *request, const char *why)
{
    snprintf(request->wrong, sizeof request->wrong, "%s", why);
    return RC_ERR_PROTOCOL;
}

/* The text between request->at and "\r\n". Redis wants to see two bytes, but looks at the first
   alone. 1: it is there; 0: more must come. */
static int find_line(struct rc_request *request, const char *bytes, size_t len,
                     struct rc_text *line, const char *too_long)
{
    size_t at = request->at;
    while (at < len && bytes[at] != '\r')
        at++;
    if (at == len)
        return len - request->at > LINE_MAX_BYTES ? fail(request, too_long) : 0;
    *line = (struct rc_text){bytes + request->at, at - request->at};
    return at + 1 < len;
}

static int read_head(struct rc_request *request, const char *bytes, size_t len)
{
    struct rc_text line;
    if (len > 0 && bytes[0] != '*')
        return fail(request, "the embedded store takes no inline commands");
    int found = find_line(request, bytes, len, &line, "too big mbulk count string");
    if (found <= 0)
        return found;
    struct rc_text number = {line.bytes + 1, line.len - 1};
    if (!rc_text_to_int(number, &request->missing) || request->missing > ARGS_MAX)
        return fail(request, "invalid multibulk length");
    if (request->missing < 0)
        request->missing = 0;
    request->at += line.len + 2;
    return 1;
}

static int read_bulk_head(struct rc_request *request, const char *bytes, size_t len)
{
    struct rc_text line;
    int found = find_line(request, bytes, len, &line, "too big bulk count string");
    if (found <= 0)
        return found;
    if (bytes[request->at] != '$') {
        snprintf(request->wrong, sizeof request->wrong, "expected '$', got '%c'",
                 bytes[request->at]);
        return RC_ERR_PROTOCOL;
    }
    struct rc_text number = {line.bytes + 1, line.len - 1};
    if (!rc_text_to_int(number, &request->bulk) || request->bulk < 0 || request->bulk > BULK_MAX)
        return fail(request, "invalid bulk length");
    request->at += line.len + 2;
    return 1;
}

static int add_arg(struct rc_request *request)
{
    if (request->count == request->room) {
        size_t room = request->room == 0 ? FIRST_ARGS : (size_t)request->room * 2;
        struct rc_text *args = realloc(request->args, room * sizeof *args);
        if (args == NULL)
            return RC_ERR_NOMEM;
        request->args = args;
        request->room = (uint32_t)room; /* ARGS_MAX is half of what it holds */
    }
    /* An offset until the command is whole: the bytes may move before that. */
    request->args[request->count++] =
        (struct rc_text){(const char *)(uintptr_t)request->at, (size_t)request->bulk};
    return 0;
}

static int read_arg(struct rc_request *request, const char *bytes, size_t len)
{
    if (request->bulk < 0) {
        int found = read_bulk_head(request, bytes, len);
        if (found <= 0)
            return found;
    }
    if (len - request->at < (size_t)request->bulk + 2)
        return 0;
    if (add_arg(request) != 0)
        return RC_ERR_NOMEM;
    request->at += (size_t)request->bulk + 2;
    request->bulk = -1;
    request->missing--;
    return 1;
}

static void forget_args(struct rc_request *request)
{
    request->count = 0;
    if (request->room <= KEEP_ARGS)
        return;
    free(request->args);
    request->args = NULL;
    request->room = 0;
}

int rc_request_read(struct rc_request *request, const char *bytes, size_t len, size_t *used)
{
    if (request->missing < 0) {
        forget_args(request);
        int found = read_head(request, bytes, len);
        if (found <= 0)
            return found;
    }
    while (request->missing > 0) {
        int found = read_arg(request, bytes, len);
        if (found <= 0)
            return found;
    }
    for (uint32_t i = 0; i < request->count; i++)
        request->args[i].bytes = bytes + (uintptr_t)request->args[i].bytes;
    *used = request->at;
    request->at = 0;
    request->missing = -1;
    return 1;
}
