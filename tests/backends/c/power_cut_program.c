/* Saves a network in a simulated memory that loses power after every number of bytes, and damages
 * what was saved. Returns the line of the first check that fails. */
#include "net.h"
#include "net_vectors.h"

#include <string.h>

#define SLOT_BYTES (NET_SLOT_BYTES(NET_WRITE_BYTES_MAX) + 13u)
#define STATES 4
#define CHECK(condition)                                                                         \
    do {                                                                                         \
        if (!(condition)) {                                                                      \
            return __LINE__;                                                                     \
        }                                                                                        \
    } while (0)

typedef struct {
    unsigned char slots[2][SLOT_BYTES];
    uint32_t slot_bytes;
    uint32_t write_bytes;
    int is_flash; /* bits are cleared, and set by erasing alone */
    uint32_t power; /* bytes that can be changed before it fails */
    uint32_t changed;
    int reads; /* before reading fails; negative: it never does */
    int wrong_use;
} memory;

static uint64_t arena[(NET_ARENA_BYTES + 7u) / 8u];
static uint64_t state[(NET_STATE_BYTES + 7u) / 8u];
static unsigned char saved[STATES][NET_SAVE_BYTES];
static memory device;
static memory before;

/* 0 without power; the byte at which it fails is half changed. */
static int change(memory *m, unsigned char *byte, unsigned char value)
{
    if (m->power == 0) {
        return 0;
    }
    --m->power;
    ++m->changed;
    *byte = (unsigned char)(m->power == 0 ? (*byte & 0x0fu) | (value & 0xf0u) : value);
    return m->power != 0;
}

static int read_slot(void *user, uint32_t slot, uint32_t offset, void *data, uint32_t bytes)
{
    memory *m = (memory *)user;
    if (m->reads == 0) {
        return -1;
    }
    m->reads -= m->reads > 0;
    m->wrong_use |= slot > 1 || offset > m->slot_bytes || bytes > m->slot_bytes - offset;
    memcpy(data, m->slots[slot] + offset, bytes);
    return 0;
}

static int erase_slot(void *user, uint32_t slot)
{
    memory *m = (memory *)user;
    uint32_t i;
    for (i = 0; i < m->slot_bytes; ++i) {
        /* Flash promises no order. */
        if (!change(m, m->slots[slot] + (i + m->slot_bytes / 2u) % m->slot_bytes, 0xff)) {
            return -1;
        }
    }
    return 0;
}

static int write_slot(
    void *user, uint32_t slot, uint32_t offset, const void *data, uint32_t bytes)
{
    memory *m = (memory *)user;
    uint32_t i;
    m->wrong_use |= offset % m->write_bytes != 0 || bytes % m->write_bytes != 0;
    m->wrong_use |= slot > 1 || offset > m->slot_bytes || bytes > m->slot_bytes - offset;
    for (i = 0; i < bytes; ++i) {
        unsigned char *byte = m->slots[slot] + offset + i;
        m->wrong_use |= m->is_flash && *byte != 0xff;
        if (!change(m, byte, ((const unsigned char *)data)[i])) {
            return -1;
        }
    }
    return 0;
}

static net_storage storage_of(memory *m)
{
    net_storage storage;
    storage.read = read_slot;
    storage.erase = m->is_flash ? erase_slot : NULL;
    storage.write = write_slot;
    storage.user = m;
    storage.slot_bytes = m->slot_bytes;
    storage.write_bytes = m->write_bytes;
    return storage;
}

static void reset(memory *m, uint32_t write_bytes, int is_flash)
{
    memset(m, 0, sizeof *m);
    memset(m->slots, is_flash ? 0xff : 0x5a, sizeof m->slots);
    m->write_bytes = write_bytes;
    m->slot_bytes = NET_SLOT_BYTES(write_bytes) + 13u;
    m->is_flash = is_flash;
    m->power = 0xffffffffu;
    m->reads = -1;
}

static void restart(net_context *context)
{
    (void)net_init(context, arena, sizeof arena, state, sizeof state);
}

/* Whether the context holds state `number`, and exactly it. */
static int holds(const net_context *context, int number)
{
    static unsigned char now[NET_SAVE_BYTES];
    size_t written;
    return net_save(context, now, sizeof now, &written) == NET_OK
        && memcmp(now, saved[number], sizeof now) == 0;
}

static int write_state(memory *m, net_context *context, int number)
{
    const net_storage storage = storage_of(m);
    (void)net_load(context, saved[number], sizeof saved[number]);
    return net_checkpoint_write(context, &storage);
}

/* Reads into a model that was started anew. */
static int read_state(memory *m, net_context *context)
{
    const net_storage storage = storage_of(m);
    restart(context);
    return net_checkpoint_read(context, &storage);
}

/* Bit by bit: not the library's. */
static uint32_t crc32_of(uint32_t crc, const unsigned char *data, uint32_t bytes)
{
    uint32_t i;
    crc = ~crc;
    for (i = 0; i < bytes * 8u; ++i) {
        const uint32_t bit = ((uint32_t)data[i / 8u] >> i % 8u) & 1u;
        crc = (crc >> 1) ^ (((crc ^ bit) & 1u) != 0 ? 0xedb88320u : 0u);
    }
    return ~crc;
}

/* Writes a word of a slot's head and makes the checksum right. */
static void forge(memory *m, uint32_t slot, uint32_t word, uint32_t value)
{
    unsigned char *head = m->slots[slot];
    uint32_t start;
    uint32_t crc;
    memcpy(head + word * 4u, &value, 4);
    memcpy(&start, head + 12, 4);
    crc = crc32_of(crc32_of(0, head, 28), head + start, NET_PAYLOAD_BYTES);
    memcpy(head + 28, &crc, 4);
}

/* `reads_old`: whether a saved state must be there after every cut. */
static int cut_everywhere(net_context *context, int number, int reads_old)
{
    uint32_t total;
    uint32_t cut;
    int seen_old = 0;
    before = device;
    CHECK(write_state(&device, context, number) == NET_OK);
    total = device.changed - before.changed;
    CHECK(total >= NET_SAVE_BYTES);
    for (cut = 0; cut <= total; ++cut) {
        int written;
        int status;
        device = before;
        device.power = cut;
        written = write_state(&device, context, number);
        device.power = 0xffffffffu;
        status = read_state(&device, context);
        if (status == NET_OK && holds(context, number)) {
            /* The new one; padding after it needs no power. */
            CHECK(cut + NET_WRITE_BYTES_MAX >= total);
        } else {
            CHECK(written == NET_ERROR_STORAGE);
            CHECK(status == NET_OK || !reads_old);
            CHECK(status == NET_OK || status == NET_ERROR_FORMAT
                || status == NET_ERROR_CHECKSUM);
            CHECK(holds(context, number - 1));
            ++seen_old;
        }
        /* The next one works. */
        CHECK(write_state(&device, context, number) == NET_OK);
        CHECK(read_state(&device, context) == NET_OK && holds(context, number));
        CHECK(!device.wrong_use);
    }
    CHECK(seen_old > (int)NET_PAYLOAD_BYTES);
    return 0;
}

static int damage_everywhere(net_context *context)
{
    uint32_t start;
    uint32_t i;
    before = device;
    memcpy(&start, device.slots[0] + 12, 4);
    /* Slot 0 holds state 3, slot 1 state 2. */
    for (i = 0; i < start + NET_PAYLOAD_BYTES; ++i) {
        const int is_padding = i >= 32u && i < start;
        device = before;
        device.slots[0][i] ^= 0x10u;
        CHECK(read_state(&device, context) == NET_OK);
        CHECK(holds(context, is_padding ? 3 : 2));
        /* Damaged both, the state stays. */
        device.slots[1][start] ^= 0x01u;
        if (!is_padding) {
            const int status = read_state(&device, context);
            CHECK(status == NET_ERROR_CHECKSUM);
            CHECK(holds(context, 0));
        }
    }
    device = before;
    return 0;
}

static int misuse(net_context *context)
{
    net_storage storage = storage_of(&device);
    net_context unready;
    memset(&unready, 0, sizeof unready);
    before = device;
    /* another model, in one slot and in both */
    forge(&device, 0, 1, 12345u);
    CHECK(read_state(&device, context) == NET_OK && holds(context, 2));
    forge(&device, 1, 2, 12345u);
    CHECK(read_state(&device, context) == NET_ERROR_MODEL && holds(context, 0));
    /* another version */
    forge(&device, 0, 0, 0x034b574eu);
    forge(&device, 1, 0, 0x034b574eu);
    CHECK(read_state(&device, context) == NET_ERROR_FORMAT && holds(context, 0));
    /* numbers that wrap */
    device = before;
    forge(&device, 0, 5, 0xffffffffu);
    forge(&device, 1, 5, 0u);
    CHECK(read_state(&device, context) == NET_OK && holds(context, 2));
    CHECK(write_state(&device, context, 1) == NET_OK);
    CHECK(read_state(&device, context) == NET_OK && holds(context, 1));
    /* lengths that reach beyond the slot */
    device = before;
    memset(device.slots[0] + 12, 0xff, 4);
    CHECK(read_state(&device, context) == NET_OK && holds(context, 2));
    device = before;
    memset(device.slots[0] + 16, 0xff, 4);
    CHECK(read_state(&device, context) == NET_OK && holds(context, 2));
    /* a storage that cannot be read: at once, or when the checked state is copied */
    device = before;
    device.reads = 0;
    CHECK(read_state(&device, context) == NET_ERROR_STORAGE && holds(context, 0));
    device.reads = 2 * (1 + (int)((NET_PAYLOAD_BYTES + NET_WRITE_BYTES_MAX - 1u)
        / NET_WRITE_BYTES_MAX));
    CHECK(read_state(&device, context) == NET_ERROR_STORAGE);
    CHECK(net_checkpoint_read(context, &storage) == NET_ERROR_CONTEXT);
    device = before;
    restart(context);
    /* a storage that forgets what was written */
    device.is_flash = 0;
    storage.erase = NULL;
    device.power = 1;
    CHECK(net_checkpoint_write(context, &storage) == NET_ERROR_STORAGE);
    device = before;
    /* arguments */
    CHECK(net_checkpoint_read(NULL, &storage) == NET_ERROR_NULL);
    CHECK(net_checkpoint_read(context, NULL) == NET_ERROR_NULL);
    CHECK(net_checkpoint_write(context, NULL) == NET_ERROR_NULL);
    CHECK(net_checkpoint_write(&unready, &storage) == NET_ERROR_CONTEXT);
    storage.slot_bytes = NET_SLOT_BYTES(storage.write_bytes) - 1u;
    CHECK(net_checkpoint_write(context, &storage) == NET_ERROR_SIZE);
    storage.slot_bytes = device.slot_bytes;
    storage.write_bytes = 0;
    CHECK(net_checkpoint_write(context, &storage) == NET_ERROR_VALUE);
    storage.write_bytes = NET_WRITE_BYTES_MAX + 1u;
    CHECK(net_checkpoint_read(context, &storage) == NET_ERROR_VALUE);
    storage.write_bytes = 4;
    storage.write = NULL;
    CHECK(net_checkpoint_write(context, &storage) == NET_ERROR_NULL);
    return 0;
}

int main(void)
{
    static const uint32_t units[] = {1, 8, 24, NET_WRITE_BYTES_MAX};
    net_context context;
    size_t unit;
    size_t written;
    int is_flash;
    int number;
    int failed;
    restart(&context);
    for (number = 0; number < STATES; ++number) {
        float loss;
        CHECK(net_save(&context, saved[number], NET_SAVE_BYTES, &written) == NET_OK);
        CHECK(number == 0 || memcmp(saved[number], saved[number - 1], NET_SAVE_BYTES) != 0);
        CHECK(net_train_step(&context, batch_x, batch_y, &loss) == NET_OK);
    }
    for (is_flash = 0; is_flash < 2; ++is_flash) {
        for (unit = 0; unit < sizeof units / sizeof units[0]; ++unit) {
            reset(&device, units[unit], is_flash);
            CHECK(read_state(&device, &context) == NET_ERROR_FORMAT);
            for (number = 1; number < STATES; ++number) {
                failed = cut_everywhere(&context, number, number > 1);
                if (failed != 0) {
                    return failed;
                }
                device = before;
                CHECK(write_state(&device, &context, number) == NET_OK);
            }
            failed = damage_everywhere(&context);
            failed = failed != 0 ? failed : misuse(&context);
            if (failed != 0) {
                return failed;
            }
        }
    }
    return 0;
}
