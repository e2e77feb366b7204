/*
 * Reads aurora_topology.json, in which the volume driver writes every second
 * or so what the cluster looks like:
 *
 *   {"version": 1,
 *    "members": [{"instance_id": text, "role": "writer" | "reader", "session_id": text,
 *                 "durable_lsn": int, "receive_lsn": int, "replay_lsn": int, "lag_ms": number,
 *                 "log_kib_per_second": number, "cpu": percent, "updated_at": Unix seconds}, ...]}
 *
 * Of a member all but instance_id may be missing or null; keys that are not
 * known are passed over. The file is replaced as a whole; it is at most 1 MiB.
 */
#ifndef BOREALIS_PLUGIN_TOPOLOGY_H
#define BOREALIS_PLUGIN_TOPOLOGY_H

#include <stdbool.h>
#include <stddef.h>

#define TOPOLOGY_FILE "aurora_topology.json"
#define TOPOLOGY_BYTES (1u << 20)
#define TOPOLOGY_MEMBERS 64
#define NAME_BYTES 256

/* Numbers that are missing are negative. */
struct member {
    char instance_id[NAME_BYTES];
    char session_id[NAME_BYTES]; /* empty: missing */
    bool writer;
    double durable_lsn, receive_lsn, replay_lsn; /* bytes */
    double lag_ms, log_kib_per_second, cpu, updated_at;
};

struct topology {
    size_t count;
    struct member members[TOPOLOGY_MEMBERS];
};

enum topology_result { TOPOLOGY_READ, TOPOLOGY_MISSING, TOPOLOGY_BROKEN };

/* Sets all numbers to missing and the texts to empty. */
void member_clear(struct member *member);

/* `text` need not end with 0. Members beyond the limit, and members without a
 * usable instance_id, are passed over. false: not such a document. */
bool topology_parse(const char *text, size_t length, struct topology *topology);

/* Reads the file; `topology` holds no members unless the result is TOPOLOGY_READ. */
enum topology_result topology_load(const char *path, struct topology *topology);

#endif
