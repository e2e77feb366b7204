#include "topology.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { DEPTH = 16, NUMBER_BYTES = 64 };

/* What is left of the document. */
struct input {
    const char *next, *end;
};

/* The next character that is not white space, without taking it; 0 at the end. */
static char peek(struct input *in) {
    while (in->next < in->end && strchr(" \t\r\n", *in->next) != NULL && *in->next != '\0')
        in->next++;
    return in->next < in->end ? *in->next : '\0';
}

static bool take(struct input *in, char expected) {
    if (peek(in) != expected || in->next == in->end)
        return false;
    in->next++;
    return true;
}

static bool take_word(struct input *in, const char *word) {
    size_t length = strlen(word);
    (void)peek(in);
    if ((size_t)(in->end - in->next) < length || memcmp(in->next, word, length) != 0)
        return false;
    in->next += length;
    return true;
}

/* A text being read: cut at its limit, and `cut` tells. */
struct sink {
    char *data;
    size_t limit, length;
    bool cut;
};

static void put(struct sink *out, unsigned value) {
    if (out->length + 1 < out->limit)
        out->data[out->length++] = (char)value;
    else
        out->cut = true;
}

static void put_code_point(struct sink *out, uint32_t code) {
    if (code < 0x80) {
        put(out, code);
    } else if (code < 0x800) {
        put(out, 0xc0 | code >> 6);
        put(out, 0x80 | (code & 0x3f));
    } else if (code < 0x10000) {
        put(out, 0xe0 | code >> 12);
        put(out, 0x80 | (code >> 6 & 0x3f));
        put(out, 0x80 | (code & 0x3f));
    } else {
        put(out, 0xf0 | code >> 18);
        put(out, 0x80 | (code >> 12 & 0x3f));
        put(out, 0x80 | (code >> 6 & 0x3f));
        put(out, 0x80 | (code & 0x3f));
    }
}

static bool hex4(struct input *in, uint32_t *value) {
    *value = 0;
    if (in->end - in->next < 4)
        return false;
    for (int i = 0; i < 4; i++) {
        char c = *in->next++;
        uint32_t digit;
        if (c >= '0' && c <= '9')
            digit = (uint32_t)(c - '0');
        else if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f')
            digit = (uint32_t)((c | 0x20) - 'a') + 10;
        else
            return false;
        *value = *value << 4 | digit;
    }
    return true;
}

/* After "\u". Half of a pair alone becomes the replacement character. */
static bool unicode_escape(struct input *in, struct sink *out) {
    uint32_t code, low;
    if (!hex4(in, &code))
        return false;
    if (code >= 0xd800 && code < 0xdc00 && in->end - in->next >= 6 && in->next[0] == '\\' && in->next[1] == 'u') {
        struct input ahead = {in->next + 2, in->end};
        if (!hex4(&ahead, &low))
            return false;
        if (low >= 0xdc00 && low < 0xe000) {
            in->next = ahead.next;
            put_code_point(out, 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00));
            return true;
        }
    }
    put_code_point(out, code >= 0xd800 && code < 0xe000 ? 0xfffd : code);
    return true;
}

static bool escape(struct input *in, struct sink *out) {
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    if (in->next == in->end)
        return false;
    char c = *in->next++;
    if (c == 'u')
        return unicode_escape(in, out);
    const char *found = c == '\0' ? NULL : strchr(from, c);
    if (found == NULL)
        return false;
    put(out, (unsigned char)to[found - from]);
    return true;
}

static bool read_text(struct input *in, struct sink *out) {
    if (!take(in, '"'))
        return false;
    while (in->next < in->end) {
        unsigned char c = (unsigned char)*in->next++;
        if (c == '"') {
            out->data[out->length] = '\0';
            return true;
        }
        if (c < 0x20)
            return false;
        if (c != '\\')
            put(out, c);
        else if (!escape(in, out))
            return false;
    }
    return false;
}

static bool read_number(struct input *in, double *value) {
    char digits[NUMBER_BYTES];
    size_t length = 0;
    (void)peek(in);
    while (in->next < in->end && *in->next != '\0' && strchr("+-.0123456789eE", *in->next) != NULL) {
        if (length + 1 == sizeof digits)
            return false;
        digits[length++] = *in->next++;
    }
    digits[length] = '\0';
    char *end;
    *value = strtod(digits, &end);
    return length > 0 && *end == '\0';
}

static bool skip_value(struct input *in, int depth);

static bool skip_container(struct input *in, char close, int depth) {
    char ignored[1];
    in->next++;
    if (take(in, close))
        return true;
    do {
        struct sink nowhere = {ignored, sizeof ignored, 0, false};
        if (close == '}' && !(read_text(in, &nowhere) && take(in, ':')))
            return false;
        if (!skip_value(in, depth))
            return false;
    } while (take(in, ','));
    return take(in, close);
}

static bool skip_value(struct input *in, int depth) {
    char ignored[1];
    struct sink nowhere = {ignored, sizeof ignored, 0, false};
    double number;
    if (depth == 0)
        return false;
    switch (peek(in)) {
    case '{':
        return skip_container(in, '}', depth - 1);
    case '[':
        return skip_container(in, ']', depth - 1);
    case '"':
        return read_text(in, &nowhere);
    case 't':
        return take_word(in, "true");
    case 'f':
        return take_word(in, "false");
    case 'n':
        return take_word(in, "null");
    default:
        return read_number(in, &number);
    }
}

/* Any value; a text that fits goes to `text`, all others leave it empty. */
static bool text_value(struct input *in, char *text, size_t limit) {
    text[0] = '\0';
    if (peek(in) != '"')
        return skip_value(in, DEPTH);
    struct sink out = {text, limit, 0, false};
    if (!read_text(in, &out))
        return false;
    if (out.cut)
        text[0] = '\0';
    return true;
}

/* Any value; a number that is not negative goes to `number`, all others leave it missing. */
static bool number_value(struct input *in, double *number) {
    char c = peek(in);
    *number = -1;
    if (c != '-' && (c < '0' || c > '9'))
        return skip_value(in, DEPTH);
    double value;
    if (!read_number(in, &value))
        return false;
    if (value >= 0 && value < 1e18)
        *number = value;
    return true;
}

static double *number_of(struct member *member, const char *key) {
    static const struct {
        const char *key;
        size_t place;
    } known[] = {
        {"durable_lsn", offsetof(struct member, durable_lsn)},
        {"receive_lsn", offsetof(struct member, receive_lsn)},
        {"replay_lsn", offsetof(struct member, replay_lsn)},
        {"lag_ms", offsetof(struct member, lag_ms)},
        {"log_kib_per_second", offsetof(struct member, log_kib_per_second)},
        {"cpu", offsetof(struct member, cpu)},
        {"updated_at", offsetof(struct member, updated_at)},
    };
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strcmp(key, known[i].key) == 0)
            return (double *)(void *)((char *)member + known[i].place);
    return NULL;
}

static bool member_value(struct input *in, const char *key, struct member *member) {
    double *number = number_of(member, key);
    if (number != NULL)
        return number_value(in, number);
    if (strcmp(key, "instance_id") == 0)
        return text_value(in, member->instance_id, sizeof member->instance_id);
    if (strcmp(key, "session_id") == 0)
        return text_value(in, member->session_id, sizeof member->session_id);
    if (strcmp(key, "role") != 0)
        return skip_value(in, DEPTH);
    char role[16];
    if (!text_value(in, role, sizeof role))
        return false;
    member->writer = strcmp(role, "writer") == 0;
    return true;
}

/* Calls `value` for every key of an object, with the input before its value. */
static bool read_object(struct input *in, bool (*value)(struct input *, const char *, void *), void *context) {
    if (!take(in, '{'))
        return false;
    if (take(in, '}'))
        return true;
    do {
        char key[32];
        struct sink out = {key, sizeof key, 0, false};
        if (!read_text(in, &out) || !take(in, ':'))
            return false;
        if (out.cut)
            key[0] = '\0'; /* longer than all that are known */
        if (!value(in, key, context))
            return false;
    } while (take(in, ','));
    return take(in, '}');
}

static bool on_member_key(struct input *in, const char *key, void *context) {
    return member_value(in, key, context);
}

void member_clear(struct member *member) {
    *member = (struct member){
        .durable_lsn = -1,
        .receive_lsn = -1,
        .replay_lsn = -1,
        .lag_ms = -1,
        .log_kib_per_second = -1,
        .cpu = -1,
        .updated_at = -1,
    };
}

static bool read_members(struct input *in, struct topology *topology) {
    if (!take(in, '['))
        return false;
    if (take(in, ']'))
        return true;
    do {
        struct member member;
        member_clear(&member);
        if (!read_object(in, on_member_key, &member))
            return false;
        if (member.instance_id[0] != '\0' && topology->count < TOPOLOGY_MEMBERS)
            topology->members[topology->count++] = member;
    } while (take(in, ','));
    return take(in, ']');
}

static bool on_document_key(struct input *in, const char *key, void *context) {
    struct topology *topology = context;
    if (strcmp(key, "members") != 0)
        return skip_value(in, DEPTH);
    topology->count = 0;
    return read_members(in, topology);
}

bool topology_parse(const char *text, size_t length, struct topology *topology) {
    struct input in = {text, text + length};
    topology->count = 0;
    if (read_object(&in, on_document_key, topology) && peek(&in) == '\0' && in.next == in.end)
        return true;
    topology->count = 0;
    return false;
}

/* Up to `limit` bytes; how many, or -1. */
static ssize_t read_all(int fd, char *data, size_t limit) {
    size_t length = 0;
    while (length < limit) {
        ssize_t count = read(fd, data + length, limit - length);
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0)
            return -1;
        if (count == 0)
            break;
        length += (size_t)count;
    }
    return (ssize_t)length;
}

static enum topology_result load_open(int fd, struct topology *topology) {
    struct stat status;
    if (fstat(fd, &status) != 0 || !S_ISREG(status.st_mode) || status.st_size > (off_t)TOPOLOGY_BYTES)
        return TOPOLOGY_BROKEN;
    size_t size = (size_t)status.st_size; /* a file that was renamed into its place does not grow */
    char *text = malloc(size + 1);
    if (text == NULL)
        return TOPOLOGY_BROKEN;
    ssize_t length = read_all(fd, text, size);
    bool whole = length >= 0 && topology_parse(text, (size_t)length, topology);
    free(text);
    return whole ? TOPOLOGY_READ : TOPOLOGY_BROKEN;
}

enum topology_result topology_load(const char *path, struct topology *topology) {
    topology->count = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return errno == ENOENT ? TOPOLOGY_MISSING : TOPOLOGY_BROKEN;
    enum topology_result result = load_open(fd, topology);
    close(fd);
    return result;
}
