/*
 * answer - writes what the store says to a call.
 *
 * What:    appends one RESP element to the call's output, in the version its session speaks.
 * Threads: the store's.
 * Memory:  appends to the call's output.
 * Errors:  an answer that finds no memory ends the session: its stream would be broken.
 * Not:     does not check that as many elements follow as were announced.
 */
#ifndef RC_ANSWER_H
#define RC_ANSWER_H

#include "store/store_own.h"

/* To a buf: a type and a number ("*2"), and a bulk string. RC_ERR_NOMEM. */
int rc_answer_head(struct rc_buf *out, char type, int64_t number);
int rc_answer_string(struct rc_buf *out, struct rc_text bytes);

void rc_answer_status(struct rc_call *call, const char *text); /* "OK" */
void rc_answer_int(struct rc_call *call, int64_t number);
void rc_answer_bulk(struct rc_call *call, struct rc_text bytes);
void rc_answer_text(struct rc_call *call, const char *text); /* a bulk string */
void rc_answer_null(struct rc_call *call);
void rc_answer_array(struct rc_call *call, size_t count);
void rc_answer_map(struct rc_call *call, size_t pairs);
void rc_answer_set(struct rc_call *call, size_t count);
/* Text with lines, as INFO gives it. */
void rc_answer_verbatim(struct rc_call *call, struct rc_text text);
void rc_answer_raw(struct rc_call *call, struct rc_text bytes);

/* "ERR what" in the manner of printf; line ends inside become blanks. */
void rc_answer_error(struct rc_call *call, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void rc_answer_syntax_error(struct rc_call *call);
void rc_answer_no_room(struct rc_call *call);
void rc_answer_take_back(struct rc_call *call); /* all that the call was answered so far */

/* The argument at `index` as a number; false: the call is answered with an error. */
bool rc_answer_take_int(struct rc_call *call, uint32_t index, int64_t *number);

#endif
