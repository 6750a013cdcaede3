/*
 * hit_ratio - how often the near cache hits on traces of requests, against LRU, S3-FIFO as it was
 * published, and the optimum.
 *
 * usage: build/hit_ratio --trace FILE [--trace FILE ...]
 *   FILE: key ids, flat, little-endian, 64 bits each; `.xz` is unpacked by the xz program
 *
 * Every cache has room for the same number of entries, 0.5, 2 and 10 % of the trace's keys: ours is
 * given values of such a size that it comes near, what it holds is counted, and the others get that
 * number. 0, 10 and 30 % of the requests are writes (the same ones for all, drawn at random from a
 * fixed seed): they drop the key and are no reads. Ratios are hits / reads in percent; ours is the
 * mean of three regions, each of which draws a hash of its own.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "support/near_policy.h"
#include "support/policy.h"
#include "support/trace.h"

enum { SIZE_COUNT = 3, WRITE_COUNT = 3, NEAR_RUNS = 3 };
static const double SIZES[SIZE_COUNT] = {0.5, 2, 10};    /* percent of the keys */
static const uint32_t WRITES[WRITE_COUNT] = {0, 10, 30}; /* percent of the requests */

/* What ours may lose, in points. */
static const double S3FIFO_BAR = 0.5, LRU_BAR = 1;

struct row {
    char name[64];
    uint32_t writes;
    double optimum, lru, s3fifo, s3fifo_ghosts, ours, ours_forgetting;
};

/* The least value of a difference, and where. */
struct least {
    double points;
    char where[64];
};

static double hit_percent(struct policy *policy, const struct trace *trace)
{
    uint32_t hits = 0, reads = 0;
    for (uint32_t i = 0; i < trace->count; i++) {
        if (trace->writes[i]) {
            policy->drop(policy->state, trace->requests[i]);
        } else {
            reads++;
            hits += policy->read(policy->state, trace->requests[i], i);
        }
    }
    policy_free(policy);
    return 100.0 * hits / reads;
}

static double near_percent(const struct trace *trace, const struct near_size *size,
                           bool ghosts_on_drop)
{
    double sum = 0;
    for (int run = 0; run < NEAR_RUNS; run++) {
        struct policy policy;
        policy_init_near(&policy, size, trace->key_ids, ghosts_on_drop);
        sum += hit_percent(&policy, trace);
    }
    return sum / NEAR_RUNS;
}

static void measure(struct row *row, const struct trace *trace, const struct near_size *size)
{
    struct policy policy;
    uint32_t keys = trace->key_count, capacity = size->capacity;
    policy_init_optimum(&policy, keys, capacity, trace->next_use);
    row->optimum = hit_percent(&policy, trace);
    policy_init_lru(&policy, keys, capacity);
    row->lru = hit_percent(&policy, trace);
    policy_init_s3fifo(&policy, keys, capacity, false);
    row->s3fifo = hit_percent(&policy, trace);
    policy_init_s3fifo(&policy, keys, capacity, true);
    row->s3fifo_ghosts = hit_percent(&policy, trace);
    row->ours = near_percent(trace, size, true);
    row->ours_forgetting = near_percent(trace, size, false);
}

/* ---- report ---------------------------------------------------------------------------------- */

static void show_head(void)
{
    printf("%-22s %6s %7s %7s %7s %7s %7s %7s %7s %9s %9s %9s\n", "trace", "size %", "entries",
           "wrote %", "optimum", "LRU", "S3-FIFO", "S3-FIFO", "ours", "ours -", "ours -", "ours -");
    printf("%-22s %6s %7s %7s %7s %7s %7s %7s %7s %9s %9s %9s\n", "", "", "", "", "", "", "",
           "+ghosts", "", "S3-FIFO", "LRU", "no ghosts");
}

static void show(const struct row *row, double percent, uint32_t capacity)
{
    printf("%-22s %6.2f %7u %7u %7.2f %7.2f %7.2f %7.2f %7.2f %+9.2f %+9.2f %+9.2f\n", row->name,
           percent, capacity, row->writes, row->optimum, row->lru, row->s3fifo, row->s3fifo_ghosts,
           row->ours, row->ours - row->s3fifo, row->ours - row->lru,
           row->ours - row->ours_forgetting);
    fflush(stdout);
}

static void note(struct least *least, double points, const struct row *row, double percent)
{
    if (points >= least->points)
        return;
    least->points = points;
    snprintf(least->where, sizeof(least->where), "%.22s, %.2f %%, %u %% writes", row->name, percent,
             row->writes);
}

static bool show_bar(const char *what, const struct least *least, double bar)
{
    bool ok = least->points >= bar;
    printf("%s: bar: >= %+.2f, least %+.2f (%s): %s\n", what, bar, least->points, least->where,
           ok ? "PASS" : "FAIL");
    return ok;
}

struct report {
    struct least to_s3fifo, to_lru;
    double gain[WRITE_COUNT], least_gain[WRITE_COUNT], most_gain[WRITE_COUNT];
    uint32_t rows[WRITE_COUNT];
};

static void ask(struct trace *trace, struct report *report)
{
    for (int s = 0; s < SIZE_COUNT; s++) {
        struct near_size size = near_size_for((uint32_t)round(trace->key_count * SIZES[s] / 100));
        double percent = 100.0 * size.capacity / trace->key_count;
        for (int w = 0; w < WRITE_COUNT; w++) {
            struct row row = {.writes = WRITES[w]};
            snprintf(row.name, sizeof(row.name), "%s", trace->name);
            trace_set_writes(trace, WRITES[w]);
            measure(&row, trace, &size);
            show(&row, percent, size.capacity);
            note(&report->to_s3fifo, row.ours - row.s3fifo, &row, percent);
            note(&report->to_lru, row.ours - row.lru, &row, percent);
            double gain = row.ours - row.ours_forgetting;
            report->gain[w] += gain;
            report->least_gain[w] = fmin(report->least_gain[w], gain);
            report->most_gain[w] = fmax(report->most_gain[w], gain);
            report->rows[w]++;
        }
    }
}

int main(int argc, char **argv)
{
    struct report report = {.to_s3fifo = {.points = 100}, .to_lru = {.points = 100}};
    if (argc < 3 || argc % 2 == 0)
        bench_fail("usage", "hit_ratio --trace FILE [--trace FILE ...]");
    for (int w = 0; w < WRITE_COUNT; w++)
        report.least_gain[w] = 100;
    show_head();
    for (int i = 1; i < argc; i += 2) {
        struct trace trace;
        if (strcmp(argv[i], "--trace") != 0)
            bench_fail("unknown argument", argv[i]);
        trace_read(&trace, argv[i + 1]);
        ask(&trace, &report);
        trace_deinit(&trace);
    }
    bool ok = show_bar("ours - S3-FIFO, points", &report.to_s3fifo, -S3FIFO_BAR);
    ok = show_bar("ours - LRU, points", &report.to_lru, -LRU_BAR) && ok;
    for (int w = 0; w < WRITE_COUNT; w++)
        if (WRITES[w] > 0)
            printf("a dropped key becomes a ghost, %u %% writes: mean %+.2f points (%+.2f to "
                   "%+.2f)\n",
                   WRITES[w], report.gain[w] / report.rows[w], report.least_gain[w],
                   report.most_gain[w]);
    return ok ? 0 : 1;
}
