/*
 * fault - what goes wrong in a run, and when.
 *
 * Threads: the run's.
 */
#ifndef RC_SIM_FAULT_H
#define RC_SIM_FAULT_H

#include "driver/sim/world.h"

/* How rough a run is follows from its seed. In nice weather the network and the servers do what they
   should, and there the oracle is strictest. */
void sim_faults_init(struct sim_world *world);

#endif
