/* The script of rate limiters, done natively, as lua/redcache/limiter.lua has it: in doubles, as
   Lua counts. */
#include "store/run.h"

#include <stdio.h>

/* Arguments of the script. */
enum { KIND = 1, LEAST, MOST, CAP, SPAN, RATE };

/* A sliding window has 65 counts and two more numbers; what is longer was not written by us. */
enum { NUMBERS_MAX = 80, CELLS_MAX = NUMBERS_MAX - 3 };
/* What a number takes as text, with the blank before it: none that we write is above 2^53. */
enum { NUMBER_MAX = 24 };

struct take {
    double now, least, most, cap, span, rate;
    double room, took, reset, wait;
    double state[NUMBERS_MAX];
    int count;
};

static double larger(double a, double b)
{
    return a > b ? a : b;
}

static double smaller(double a, double b)
{
    return a < b ? a : b;
}

/* To the whole number below; from 2^53 on all are whole. */
static double down(double number)
{
    if (!(number > -0x1p53 && number < 0x1p53))
        return number;
    double whole = (double)(int64_t)number;
    return whole > number ? whole - 1 : whole;
}

static double up(double number)
{
    return -down(-number);
}

static double number_arg(const struct rc_run *run, uint32_t i)
{
    int64_t number = 0;
    (void)rc_text_to_int(rc_run_arg(run, i), &number);
    return larger(-0x1p53, smaller((double)number, 0x1p53));
}

static bool is_kind(const struct rc_run *run, const char *kind)
{
    return rc_text_equal(rc_run_arg(run, KIND), (struct rc_text){kind, 1});
}

/* The runs of digits in what stands there. */
static void read_state(const struct rc_run *run, struct rc_text text, struct take *take)
{
    struct rc_text kind = rc_run_arg(run, KIND);
    if (text.len == 0 || kind.len != 1 || text.bytes[0] != kind.bytes[0])
        return;
    bool is_inside = false;
    for (size_t at = 0; at < text.len; at++) {
        char c = text.bytes[at];
        if (c < '0' || c > '9') {
            is_inside = false;
            continue;
        }
        if (!is_inside && take->count == NUMBERS_MAX)
            return;
        if (!is_inside)
            take->state[take->count++] = 0;
        is_inside = true;
        double *number = &take->state[take->count - 1];
        *number = *number * 10 + (c - '0');
    }
}

static void grant(struct take *take)
{
    if (take->room >= take->least) {
        take->took = smaller(take->most, take->room);
        take->room -= take->took;
    }
}

static void take_fixed(struct take *take)
{
    double ends = take->now + take->span, count = 0;
    if (take->count == 2 && take->now < take->state[0]) {
        ends = smaller(ends, take->state[0]);
        count = take->state[1];
    }
    take->room = take->cap - count;
    if (take->room < take->least)
        take->wait = ends - take->now;
    grant(take);
    count += take->took;
    if (count > 0)
        take->reset = ends - take->now;
    take->state[0] = ends;
    take->state[1] = count;
    take->count = 2;
}

/* Puts the counts where they stand now, the newest first; their sum. */
static double move_cells(const struct take *take, double cell, double cells[CELLS_MAX + 1])
{
    double sum = 0, last = smaller(take->rate, CELLS_MAX);
    bool is_same = take->count > 2 && take->state[1] == take->span;
    double shift = is_same ? larger(cell - take->state[0], 0) : 0;
    for (int i = 2; i < take->count; i++) {
        double to = is_same ? i - 2 + shift : 0;
        if (to > last)
            continue;
        cells[(int)to] += take->state[i];
        sum += take->state[i];
    }
    return sum;
}

static void take_sliding(struct take *take)
{
    double cells[CELLS_MAX + 1] = {0}, cell = down(take->now / take->span);
    int last = (int)smaller(take->rate, CELLS_MAX);
    take->room = take->cap - move_cells(take, cell, cells);
    double need = take->least - take->room;
    grant(take);
    cells[0] += take->took;
    take->state[0] = cell;
    take->state[1] = take->span;
    take->count = 2;
    for (int i = last; i >= 0; i--) {
        if (cells[i] > 0) {
            take->reset = (cell - i + take->rate + 1) * take->span - take->now;
            if (need > 0 && (need -= cells[i]) <= 0)
                take->wait = take->reset;
        }
        if (take->reset > 0) {
            take->state[i + 2] = cells[i];
            take->count = take->count > i + 3 ? take->count : i + 3;
        }
    }
}

static void take_gcra(struct take *take)
{
    double owed = 0;
    if (take->count == 3 && take->state[2] > 0) {
        owed = take->state[1];
        if (take->state[2] != take->span)
            owed = up(owed / take->state[2] * take->span);
        owed = larger(owed - larger(take->now - take->state[0], 0) * take->rate, 0);
    }
    double all = take->cap * take->span;
    take->room = down((all - owed) / take->span);
    if (take->room < take->least)
        take->wait = up((owed + take->least * take->span - all) / take->rate);
    grant(take);
    owed += take->took * take->span;
    take->reset = up(owed / take->rate);
    take->state[0] = take->now;
    take->state[1] = owed;
    take->state[2] = take->span;
    take->count = 3;
}

static void store(struct rc_run *run, const struct take *take)
{
    char bytes[1 + NUMBERS_MAX * NUMBER_MAX], digits[NUMBER_MAX];
    size_t len = 1;
    bytes[0] = rc_run_arg(run, KIND).bytes[0];
    for (int i = 0; i < take->count; i++) {
        double number = smaller(take->state[i], 0x1p63);
        len += (size_t)snprintf(bytes + len, sizeof bytes - len, " %.0f", number);
    }
    int digits_len =
        snprintf(digits, sizeof digits, "%.0f", smaller(up(take->reset / 1000) + 1, 0x1p63));
    RC_RUN_CALL(run, RC_WORD("SET"), rc_run_key(run, 1), (struct rc_text){bytes, len},
                RC_WORD("PX"), (struct rc_text){digits, (size_t)digits_len});
}

static void answer(struct rc_run *run, double number)
{
    if (number >= 0x1p63)
        rc_run_answer_int(run, INT64_MAX);
    else
        rc_run_answer_int(run, number > 0 ? (int64_t)number : 0);
}

static void take(struct rc_run *run)
{
    if (is_kind(run, "r")) {
        rc_run_answer_int(run, RC_RUN_CALL(run, RC_WORD("UNLINK"), rc_run_key(run, 1)).number);
        return;
    }
    struct take take = {
        .now = (double)run->call->store->now_us,
        .least = number_arg(run, LEAST),
        .most = number_arg(run, MOST),
        .cap = number_arg(run, CAP),
        .span = larger(number_arg(run, SPAN), 1),
        .rate = number_arg(run, RATE),
    };
    struct rc_value old = RC_RUN_CALL(run, RC_WORD("GET"), rc_run_key(run, 1));
    read_state(run, rc_run_text(run, old), &take);
    if (is_kind(run, "f"))
        take_fixed(&take);
    else if (is_kind(run, "s"))
        take_sliding(&take);
    else
        take_gcra(&take);
    if (take.took > 0)
        store(run, &take);
    rc_run_answer_list(run, 4, (int64_t)take.took);
    answer(run, take.room);
    answer(run, take.reset);
    answer(run, take.wait);
}

const struct rc_twin rc_limit_twins[] = {
    {"496b891ee64b7714f74501b1105a9dd7e6aced5c", take},
    {"", NULL},
};
