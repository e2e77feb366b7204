/* Reads each file that is named, and tells what was in it: for the tests of the plugin's reader. */
#include "topology.h"

#include <stdio.h>

int main(int count, char **paths) {
    static struct topology topology;
    for (int i = 1; i < count; i++) {
        printf("%d", (int)topology_load(paths[i], &topology));
        for (size_t m = 0; m < topology.count; m++) {
            const struct member *member = &topology.members[m];
            printf("\t%s|%s|%d|%.0f|%g|%.1f", member->instance_id, member->session_id, member->writer,
                   member->replay_lsn, member->lag_ms, member->updated_at);
        }
        printf("\n");
    }
    return 0;
}
