/*
 * reshard - what happens to a cluster: places move, masters change.
 *
 * What:    a place goes to another master key by key (MIGRATE), at once (the old owner tells of its
 *          keys seconds later, or never), by a claim that its owner has not heard of (its keys are
 *          lost), or over a time in which it is nobody's (DELSLOTS). A replica takes over from a
 *          master that is dead, asked to leave, stopped or cut off; the last two live on, and take
 *          commands as its slots' owners until they hear of it. In every eighth rough history
 *          replicas hear late, and masters are replaced right behind an acknowledged delete.
 * Threads: the run's.
 * Memory:  none.
 * Errors:  without memory the program ends (sim_must). What cannot be done now is not done.
 * Not:     knows how the news travels: bus.h does.
 */
#ifndef RC_SIM_RESHARD_H
#define RC_SIM_RESHARD_H

#include "driver/sim/world.h"

/* Makes a cluster of the world. Behind sim_faults_init. */
void sim_reshard_init(struct sim_world *world);
/* Its servers are there. */
void sim_reshard_begin(struct sim_world *world);

enum sim_move_kind { SIM_MOVE_BY_KEY, SIM_MOVE_AT_ONCE, SIM_MOVE_BY_GOSSIP, SIM_MOVE_OVER_NOBODY };
/* Some place goes to some other master. */
void sim_reshard_move(struct sim_world *world, enum sim_move_kind kind);

enum sim_leave_kind { SIM_LEAVE_DEAD, SIM_LEAVE_ASKED, SIM_LEAVE_STOPPED, SIM_LEAVE_CUT_OFF };
/* Some master is replaced by its replica. */
void sim_reshard_fail_over(struct sim_world *world, enum sim_leave_kind kind);
/* A client was told that its delete of a key in that place is done. */
void sim_reshard_on_delete(struct sim_world *world, int place);

#endif
