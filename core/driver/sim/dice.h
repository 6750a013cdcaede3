/*
 * dice - everything that is random in a simulated run, from one seed.
 *
 * What:    a stream of numbers, and what is read off them: ranges, chances.
 * Threads: the run's.
 * Memory:  eight bytes of the caller.
 * Errors:  none.
 * Not:     not for anything that has to be secret.
 * Source:  SplitMix64: Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014.
 */
#ifndef RC_SIM_DICE_H
#define RC_SIM_DICE_H

#include <stdbool.h>
#include <stdint.h>

struct sim_dice {
    uint64_t state;
};

static inline uint64_t sim_dice_roll(struct sim_dice *dice)
{
    uint64_t word = dice->state += UINT64_C(0x9e3779b97f4a7c15);
    word = (word ^ word >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    word = (word ^ word >> 27) * UINT64_C(0x94d049bb133111eb);
    return word ^ word >> 31;
}

/* Both ends included. */
static inline int64_t sim_dice_between(struct sim_dice *dice, int64_t low, int64_t high)
{
    return low + (int64_t)(sim_dice_roll(dice) % (uint64_t)(high - low + 1));
}

/* As between, but small numbers are as likely as large ones. */
static inline int64_t sim_dice_spread(struct sim_dice *dice, int64_t low, int64_t high)
{
    return sim_dice_between(dice, low, sim_dice_between(dice, low, high));
}

static inline bool sim_dice_falls(struct sim_dice *dice, int permille)
{
    return sim_dice_between(dice, 0, 999) < permille;
}

#endif
