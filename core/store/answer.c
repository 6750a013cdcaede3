#include "store/answer.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { ERROR_MAX = 1024 }; /* the longest holds 2 x 128 bytes of the user's */

int rc_answer_head(struct rc_buf *out, char type, int64_t number)
{
    int error = rc_buf_reserve(out, RC_TEXT_INT_MAX + 3);
    if (error != 0)
        return error;
    char *at = out->bytes + out->end;
    *at++ = type;
    at += rc_text_from_int(at, number);
    *at++ = '\r';
    *at++ = '\n';
    out->end = (size_t)(at - out->bytes);
    return 0;
}

int rc_answer_string(struct rc_buf *out, struct rc_text bytes)
{
    int error = rc_buf_reserve(out, bytes.len + RC_TEXT_INT_MAX + 5);
    if (error != 0)
        return error;
    rc_answer_head(out, '$', (int64_t)bytes.len);
    char *at = out->bytes + out->end;
    if (bytes.len > 0)
        memcpy(at, bytes.bytes, bytes.len);
    memcpy(at + bytes.len, "\r\n", 2);
    out->end += bytes.len + 2;
    return 0;
}

static void check(struct rc_call *call, int error)
{
    if (error != 0)
        call->session->conn.wants_close = true;
}

void rc_answer_raw(struct rc_call *call, struct rc_text bytes)
{
    check(call, rc_buf_append(call->out, bytes.bytes, bytes.len));
}

static void answer_line(struct rc_call *call, const char *line)
{
    rc_answer_raw(call, (struct rc_text){line, strlen(line)});
}

void rc_answer_status(struct rc_call *call, const char *text)
{
    answer_line(call, "+");
    answer_line(call, text);
    answer_line(call, "\r\n");
}

void rc_answer_int(struct rc_call *call, int64_t number)
{
    check(call, rc_answer_head(call->out, ':', number));
}

void rc_answer_bulk(struct rc_call *call, struct rc_text bytes)
{
    check(call, rc_answer_string(call->out, bytes));
}

void rc_answer_text(struct rc_call *call, const char *text)
{
    rc_answer_bulk(call, (struct rc_text){text, strlen(text)});
}

void rc_answer_null(struct rc_call *call)
{
    answer_line(call, call->resp > 2 ? "_\r\n" : "$-1\r\n");
}

void rc_answer_array(struct rc_call *call, size_t count)
{
    check(call, rc_answer_head(call->out, '*', (int64_t)count));
}

void rc_answer_map(struct rc_call *call, size_t pairs)
{
    bool has_maps = call->resp > 2;
    check(call,
          rc_answer_head(call->out, has_maps ? '%' : '*', (int64_t)(has_maps ? pairs : pairs * 2)));
}

void rc_answer_set(struct rc_call *call, size_t count)
{
    check(call, rc_answer_head(call->out, call->resp > 2 ? '~' : '*', (int64_t)count));
}

void rc_answer_verbatim(struct rc_call *call, struct rc_text text)
{
    if (call->resp < 3) {
        rc_answer_bulk(call, text);
        return;
    }
    check(call, rc_answer_head(call->out, '=', (int64_t)text.len + 4));
    answer_line(call, "txt:");
    rc_answer_raw(call, text);
    answer_line(call, "\r\n");
}

void rc_answer_error(struct rc_call *call, const char *format, ...)
{
    char line[ERROR_MAX] = "-";
    va_list values;
    va_start(values, format);
    vsnprintf(line + 1, sizeof line - 1, format, values);
    va_end(values);
    size_t len = strlen(line);
    while (line[len - 1] == '\r' || line[len - 1] == '\n')
        line[--len] = '\0';
    for (char *at = line; *at != '\0'; at++) {
        if (*at == '\r' || *at == '\n')
            *at = ' ';
    }
    answer_line(call, line);
    answer_line(call, "\r\n");
}

void rc_answer_syntax_error(struct rc_call *call)
{
    rc_answer_error(call, "ERR syntax error");
}

void rc_answer_no_room(struct rc_call *call)
{
    rc_answer_error(call, "OOM command not allowed when used memory > 'maxmemory'.");
}

void rc_answer_take_back(struct rc_call *call)
{
    call->out->end = call->out->start + call->mark;
}

bool rc_answer_take_int(struct rc_call *call, uint32_t index, int64_t *number)
{
    if (rc_text_to_int(call->args[index], number))
        return true;
    rc_answer_error(call, "ERR value is not an integer or out of range");
    return false;
}
