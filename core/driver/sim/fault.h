/*
 * fault - what goes wrong in a run, and when.
 *
 * What:    cuts connections, stops, kills and fails over, sets clocks, and writes as a foreign
 *          client does.
 * Threads: the run's.
 * Memory:  none.
 * Errors:  none.
 * Not:     does not judge: the oracle knows when something was wrong (sim_world_hurt).
 */
#ifndef RC_SIM_FAULT_H
#define RC_SIM_FAULT_H

#include "driver/sim/world.h"

/* How rough a run is follows from its seed. In nice weather the network and the servers do what
   they should, and there the oracle is strictest. */
void sim_faults_init(struct sim_world *world);

#endif
