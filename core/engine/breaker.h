/*
 * breaker - whether one server is well enough to be asked at all.
 *
 * What:    hears how requests to a server end, and opens where too many of the last `window` ended
 *          badly, where more than half of them were slow, or where the server has been silent for
 *          `silence_us`. While it is open callers are refused. After `wait_us` it may be probed,
 *          one request at a time; `probes` good answers in a row close it.
 * Threads: the engine's owner.
 * Memory:  none but the struct; rules are copied.
 * Errors:  none.
 * Not:     sends nothing and has no timer: fuse.h does both. Does not know requests or links.
 */
#ifndef RC_BREAKER_H
#define RC_BREAKER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { RC_BREAKER_WINDOW_MAX = 200, RC_BREAKER_WAIT_MAX_US = 1000 * 1000 };

enum rc_breaker_hold { RC_BREAKER_AUTO, RC_BREAKER_HELD_OPEN, RC_BREAKER_HELD_CLOSED };
enum rc_breaker_state { RC_BREAKER_CLOSED, RC_BREAKER_OPEN, RC_BREAKER_HALF_OPEN };
enum rc_breaker_sample { RC_SAMPLE_GOOD, RC_SAMPLE_SLOW, RC_SAMPLE_BAD };

struct rc_breaker_rules {
    uint32_t window;          /* samples; nothing is said before there are so many */
    uint32_t errors_permille; /* of the window, from which on it opens */
    int64_t latency_us;       /* an answer that takes longer is slow; a minute: none is */
    int64_t silence_us;       /* so long without any answer opens it at once */
    int64_t wait_us;          /* from opening to the first probe; doubles up to a second */
    uint32_t probes;          /* good answers in a row that close it */
};

struct rc_breaker {
    /* Fixed after init. */
    struct rc_breaker_rules rules;
    int64_t short_us; /* who did not wait for longer than that says nothing by its time-out */
    int64_t gap_us;   /* a turn that comes later than that was away, and not the server slow */
    int64_t gone_us;  /* the same, where it was so long that the server may not have run, either */
    void *owner;
    void (*on_sent)(struct rc_breaker *breaker);   /* first request since is_watched was cleared */
    void (*on_change)(struct rc_breaker *breaker); /* it has opened or closed */

    /* Engine only. */
    enum rc_breaker_state state;
    enum rc_breaker_hold hold; /* by hand; AUTO: it opens and closes by what it hears */
    bool is_watched;           /* somebody looks at the clock: see away_us */
    uint8_t samples[RC_BREAKER_WINDOW_MAX];
    uint32_t at, count, slow, bad;
    uint32_t good_probes;
    int64_t pace_us; /* from one probe that failed to the next */
    int64_t next_us; /* when it may be probed */
    int64_t probed_us;
    int64_t away_us;   /* when this process was last found not to have turned in time: what was sent
                        before says nothing of the server's speed */
    int64_t back_us;   /* the same, for longer than gone_us: nor of its silence */
    const char *cause; /* why it is open: a static text */
};

void rc_breaker_init(struct rc_breaker *breaker, const struct rc_breaker_rules *rules);

static inline bool rc_breaker_is_shut(const struct rc_breaker *breaker)
{
    return breaker->state != RC_BREAKER_CLOSED;
}

/* A request goes out. */
static inline void rc_breaker_sent(struct rc_breaker *breaker)
{
    if (!breaker->is_watched && breaker->on_sent != NULL)
        breaker->on_sent(breaker);
}

/* A timer of this process fired so late: it has stood still, and not looked for answers. */
void rc_breaker_late(struct rc_breaker *breaker, int64_t late_us, int64_t now_us);

/* An answer to what was sent then. took_us: since then, or since the answer before it, whichever is
   later: what stood in line behind others is not slow. */
void rc_breaker_hear(struct rc_breaker *breaker, bool is_error, int64_t sent_us, int64_t took_us,
                     int64_t now_us);
/* A request ended by time after waited_us, and no answer at all has come for silent_us. */
void rc_breaker_miss(struct rc_breaker *breaker, int64_t waited_us, int64_t silent_us,
                     int64_t now_us);
/* A connection broke under its requests. */
void rc_breaker_broke(struct rc_breaker *breaker, int64_t now_us);

/* It stands for another server: closed, unless it is held open, and nothing is known. */
void rc_breaker_renew(struct rc_breaker *breaker);

/* Holds it open or closed, or lets it go: one that was held open is probed at once then. */
void rc_breaker_set_hold(struct rc_breaker *breaker, enum rc_breaker_hold hold, int64_t now_us);

/* Whether a probe may be sent now. True: it counts as sent. */
bool rc_breaker_may_probe(struct rc_breaker *breaker, int64_t now_us);
void rc_breaker_probed(struct rc_breaker *breaker, bool is_good, bool has_answered, int64_t now_us);
/* There is a sign of life: the next probe need not wait, unless one was sent within wait_us. */
void rc_breaker_hurry(struct rc_breaker *breaker, int64_t now_us);

const char *rc_breaker_state_name(const struct rc_breaker *breaker); /* "closed", ... */
/* Why a caller is refused: whole sentence, NUL-ended. */
void rc_breaker_tell(const struct rc_breaker *breaker, const char *address, int64_t now_us,
                     char *text, size_t size);

#endif
