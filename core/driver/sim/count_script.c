#include "driver/sim/count_script.h"

#include <assert.h>
#include <string.h>

#include "engine/script.h"
#include "store/run.h"

extern const char sim_count_source[]; /* NUL-ended, made by count_source.cmake */

int sim_count_script(void)
{
    static int script = -1;
    if (script < 0)
        script = rc_script_add(sim_count_source, strlen(sim_count_source));
    assert(script < 0 || rc_script_find(rc_count_twins[0].sha) == script);
    return script;
}
