/* A saved state: these little-endian words, then the payload from byte HEAD_START on. */
enum {
    HEAD_MAGIC, /* and version */
    HEAD_HASH_HIGH,
    HEAD_HASH_LOW,
    HEAD_START,
    HEAD_BYTES,
    HEAD_SEQUENCE,
    HEAD_LR,
    HEAD_CHECKSUM, /* CRC-32 of the words before and of the payload */
    HEAD_WORDS
};
typedef char ${p}_check_head[(${P}_SAVE_BYTES - ${P}_PAYLOAD_BYTES == HEAD_WORDS * 4u) ? 1 : -1];

#define SAVE_MAGIC 0x${magic}u
#define MODEL_HASH_HIGH 0x${hash_high}u
#define MODEL_HASH_LOW 0x${hash_low}u
#define CHECKSUM_START 0xffffffffu
#define CHUNK_BYTES ${P}_WRITE_BYTES_MAX

/* The payload: of each entry of the state, by name, the rows that a step writes. */
static const struct {
    uint32_t block;
    uint32_t offset;
    uint32_t bytes; /* of a row */
    uint32_t stride;
    uint32_t rows;
} saved_rows[] = {
${saved_rows}
};

static uint32_t smaller(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static uint32_t round_up(uint32_t bytes, uint32_t multiple)
{
    return (bytes + multiple - 1u) / multiple * multiple;
}

/* CRC-32 (IEEE 802.3) without the final inversion, half a byte at a time. */
static uint32_t add_checksum(uint32_t crc, const void *data, uint32_t bytes)
{
    static const uint32_t table[16] = {
        0x00000000u, 0x1db71064u, 0x3b6e20c8u, 0x26d930acu, 0x76dc4190u, 0x6b6b51f4u,
        0x4db26158u, 0x5005713cu, 0xedb88320u, 0xf00f9344u, 0xd6d6a3e8u, 0xcb61b38cu,
        0x9b64c2b0u, 0x86d3d2d4u, 0xa00ae278u, 0xbdbdf21cu};
    const unsigned char *byte = (const unsigned char *)data;
    uint32_t i;
    for (i = 0; i < bytes; ++i) {
        crc ^= byte[i];
        crc = (crc >> 4) ^ table[crc & 15u];
        crc = (crc >> 4) ^ table[crc & 15u];
    }
    return crc;
}

static uint32_t head_checksum(const uint32_t *head)
{
    return add_checksum(CHECKSUM_START, head, HEAD_CHECKSUM * 4u);
}

/* Copies `bytes` bytes of the payload from byte `at` on: from the state to `to`, or, where that is
 * NULL, from `from` to the state. */
static void copy_payload(const ${p}_context *context, uint32_t at, uint32_t bytes,
    const unsigned char *from, unsigned char *to)
{
    unsigned char *const blocks[] = {${state_blocks}};
    uint32_t start = 0;
    size_t i;
    for (i = 0; i < sizeof saved_rows / sizeof saved_rows[0]; ++i) {
        const uint32_t row_bytes = saved_rows[i].bytes;
        const uint32_t end = start + row_bytes * saved_rows[i].rows;
        while (bytes != 0 && at < end) {
            const uint32_t row = (at - start) / row_bytes;
            const uint32_t column = (at - start) % row_bytes;
            const uint32_t count = smaller(row_bytes - column, bytes);
            unsigned char *place = blocks[saved_rows[i].block] + saved_rows[i].offset
                + row * saved_rows[i].stride + column;
            if (to != NULL) {
                memcpy(to, place, count);
                to += count;
            } else {
                memcpy(place, from, count);
                from += count;
            }
            at += count;
            bytes -= count;
        }
        start = end;
    }
}

static void make_head(
    const ${p}_context *context, uint32_t start, uint32_t sequence, uint32_t *head)
{
    unsigned char chunk[CHUNK_BYTES];
    uint32_t crc;
    uint32_t at;
    head[HEAD_MAGIC] = SAVE_MAGIC;
    head[HEAD_HASH_HIGH] = MODEL_HASH_HIGH;
    head[HEAD_HASH_LOW] = MODEL_HASH_LOW;
    head[HEAD_START] = start;
    head[HEAD_BYTES] = ${P}_PAYLOAD_BYTES;
    head[HEAD_SEQUENCE] = sequence;
    memcpy(&head[HEAD_LR], &context->lr, 4);
    crc = head_checksum(head);
    for (at = 0; at < ${P}_PAYLOAD_BYTES; at += CHUNK_BYTES) {
        const uint32_t bytes = smaller(${P}_PAYLOAD_BYTES - at, CHUNK_BYTES);
        copy_payload(context, at, bytes, NULL, chunk);
        crc = add_checksum(crc, chunk, bytes);
    }
    head[HEAD_CHECKSUM] = ~crc;
}

/* Whether `room` bytes can hold what a head describes. */
static int check_head(const uint32_t *head, size_t room)
{
    if (head[HEAD_MAGIC] != SAVE_MAGIC) {
        return ${P}_ERROR_FORMAT;
    }
    if (head[HEAD_START] < HEAD_WORDS * 4u || head[HEAD_START] > room
        || head[HEAD_BYTES] > room - head[HEAD_START]) {
        return ${P}_ERROR_CHECKSUM;
    }
    return ${P}_OK;
}

/* The last check: a damaged head is not taken for another model's. */
static int check_model(const uint32_t *head, uint32_t crc)
{
    if (~crc != head[HEAD_CHECKSUM]) {
        return ${P}_ERROR_CHECKSUM;
    }
    if (head[HEAD_HASH_HIGH] != MODEL_HASH_HIGH || head[HEAD_HASH_LOW] != MODEL_HASH_LOW
        || head[HEAD_BYTES] != ${P}_PAYLOAD_BYTES) {
        return ${P}_ERROR_MODEL;
    }
    return ${P}_OK;
}

int ${p}_save(const ${p}_context *context, void *buffer, size_t size, size_t *written)
{
    const int status = check_context(context);
    uint32_t head[HEAD_WORDS];
    if (status != ${P}_OK) {
        return status;
    }
    if (buffer == NULL || written == NULL) {
        return ${P}_ERROR_NULL;
    }
    if (size < ${P}_SAVE_BYTES) {
        return ${P}_ERROR_SIZE;
    }
    make_head(context, sizeof head, 0, head);
    memcpy(buffer, head, sizeof head);
    copy_payload(
        context, 0, ${P}_PAYLOAD_BYTES, NULL, (unsigned char *)buffer + sizeof head);
    *written = ${P}_SAVE_BYTES;
    return ${P}_OK;
}

int ${p}_load(${p}_context *context, const void *buffer, size_t size)
{
    int status = check_context(context);
    uint32_t head[HEAD_WORDS];
    const unsigned char *saved;
    if (status != ${P}_OK) {
        return status;
    }
    if (buffer == NULL) {
        return ${P}_ERROR_NULL;
    }
    if (size < ${P}_SAVE_BYTES) {
        return ${P}_ERROR_SIZE;
    }
    memcpy(head, buffer, sizeof head);
    status = check_head(head, size);
    if (status != ${P}_OK) {
        return status;
    }
    saved = (const unsigned char *)buffer + head[HEAD_START];
    status = check_model(head, add_checksum(head_checksum(head), saved, head[HEAD_BYTES]));
    if (status != ${P}_OK) {
        return status;
    }
    copy_payload(context, 0, ${P}_PAYLOAD_BYTES, saved, NULL);
    memcpy(&context->lr, &head[HEAD_LR], 4);
    return ${P}_OK;
}

static int check_storage(const ${p}_storage *storage)
{
    if (storage == NULL || storage->read == NULL || storage->write == NULL) {
        return ${P}_ERROR_NULL;
    }
    if (storage->write_bytes == 0 || storage->write_bytes > ${P}_WRITE_BYTES_MAX) {
        return ${P}_ERROR_VALUE;
    }
    return storage->slot_bytes < ${P}_SLOT_BYTES(storage->write_bytes) ? ${P}_ERROR_SIZE
                                                                       : ${P}_OK;
}

/* The payload of a slot: its checksum after `crc`, and itself into the state if there is one. */
static int read_payload(const ${p}_storage *storage, uint32_t slot, const uint32_t *head,
    uint32_t *crc, const ${p}_context *context)
{
    unsigned char chunk[CHUNK_BYTES];
    uint32_t at;
    for (at = 0; at < head[HEAD_BYTES]; at += CHUNK_BYTES) {
        const uint32_t bytes = smaller(head[HEAD_BYTES] - at, CHUNK_BYTES);
        if (storage->read(storage->user, slot, head[HEAD_START] + at, chunk, bytes) != 0) {
            return ${P}_ERROR_STORAGE;
        }
        *crc = add_checksum(*crc, chunk, bytes);
        if (context != NULL) {
            copy_payload(context, at, bytes, chunk, NULL);
        }
    }
    return ${P}_OK;
}

/* Whether a slot holds a state of this model; reads all of it. */
static int check_slot(const ${p}_storage *storage, uint32_t slot, uint32_t *head)
{
    uint32_t crc;
    int status;
    if (storage->read(storage->user, slot, 0, head, HEAD_WORDS * 4u) != 0) {
        return ${P}_ERROR_STORAGE;
    }
    status = check_head(head, storage->slot_bytes);
    if (status != ${P}_OK) {
        return status;
    }
    crc = head_checksum(head);
    status = read_payload(storage, slot, head, &crc, NULL);
    return status != ${P}_OK ? status : check_model(head, crc);
}

/* The newest whole state; what is wrong with the worse slot if there is none. */
static int find_newest(const ${p}_storage *storage, uint32_t *slot, uint32_t *head)
{
    uint32_t heads[2][HEAD_WORDS];
    const int first = check_slot(storage, 0, heads[0]);
    const int second = check_slot(storage, 1, heads[1]);
    if (first != ${P}_OK && second != ${P}_OK) {
        return first > second ? first : second;
    }
    *slot = 0;
    if (second == ${P}_OK) {
        /* The number may wrap. */
        const uint32_t ahead = heads[1][HEAD_SEQUENCE] - heads[0][HEAD_SEQUENCE];
        *slot = (first != ${P}_OK || ahead < 0x80000000u) ? 1u : 0u;
    }
    memcpy(head, heads[*slot], sizeof heads[0]);
    return ${P}_OK;
}

static int write_payload(const ${p}_context *context, const ${p}_storage *storage, uint32_t slot,
    uint32_t start)
{
    unsigned char chunk[CHUNK_BYTES];
    const uint32_t step = CHUNK_BYTES / storage->write_bytes * storage->write_bytes;
    uint32_t at;
    for (at = 0; at < ${P}_PAYLOAD_BYTES; at += step) {
        const uint32_t bytes = smaller(${P}_PAYLOAD_BYTES - at, step);
        const uint32_t padded = round_up(bytes, storage->write_bytes);
        memset(chunk, 0xff, sizeof chunk);
        copy_payload(context, at, bytes, NULL, chunk);
        if (storage->write(storage->user, slot, start + at, chunk, padded) != 0) {
            return ${P}_ERROR_STORAGE;
        }
    }
    return ${P}_OK;
}

static int write_head(const ${p}_storage *storage, uint32_t slot, const uint32_t *head)
{
    unsigned char padded[CHUNK_BYTES];
    memset(padded, 0xff, sizeof padded);
    memcpy(padded, head, HEAD_WORDS * 4u);
    return storage->write(storage->user, slot, 0, padded, head[HEAD_START]) != 0
        ? ${P}_ERROR_STORAGE
        : ${P}_OK;
}

int ${p}_checkpoint_write(const ${p}_context *context, const ${p}_storage *storage)
{
    int status = check_context(context);
    uint32_t head[HEAD_WORDS];
    uint32_t slot = 0;
    uint32_t sequence = 1;
    status = status != ${P}_OK ? status : check_storage(storage);
    if (status != ${P}_OK) {
        return status;
    }
    if (find_newest(storage, &slot, head) == ${P}_OK) {
        slot = 1u - slot;
        sequence = head[HEAD_SEQUENCE] + 1u;
    }
    make_head(context, round_up(HEAD_WORDS * 4u, storage->write_bytes), sequence, head);
    if (storage->erase != NULL && storage->erase(storage->user, slot) != 0) {
        return ${P}_ERROR_STORAGE;
    }
    status = write_payload(context, storage, slot, head[HEAD_START]);
    /* The head is last: until it is whole, the slot holds nothing. */
    status = status != ${P}_OK ? status : write_head(storage, slot, head);
    if (status != ${P}_OK) {
        return status;
    }
    if (check_slot(storage, slot, head) != ${P}_OK || head[HEAD_SEQUENCE] != sequence) {
        return ${P}_ERROR_STORAGE;
    }
    return ${P}_OK;
}

int ${p}_checkpoint_read(${p}_context *context, const ${p}_storage *storage)
{
    int status = check_context(context);
    uint32_t head[HEAD_WORDS];
    uint32_t slot;
    uint32_t crc;
    status = status != ${P}_OK ? status : check_storage(storage);
    status = status != ${P}_OK ? status : find_newest(storage, &slot, head);
    if (status != ${P}_OK) {
        return status;
    }
    crc = head_checksum(head);
    status = read_payload(storage, slot, head, &crc, context);
    if (status != ${P}_OK || ~crc != head[HEAD_CHECKSUM]) {
        /* The state is half of each. */
        context->ready = 0;
        return ${P}_ERROR_STORAGE;
    }
    memcpy(&context->lr, &head[HEAD_LR], 4);
    return ${P}_OK;
}
