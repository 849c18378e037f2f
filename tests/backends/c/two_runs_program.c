/* One life of a device: takes over what the last one saved, trains two steps, saves. */
#include "net.h"
#include "net_vectors.h"
#include "platform.h"

#include <string.h>

#define UNIT 32u

typedef struct {
    unsigned char slots[2][NET_SLOT_BYTES(UNIT)];
} flash;

static uint64_t arena[(NET_ARENA_BYTES + 7u) / 8u];
static uint64_t state[(NET_STATE_BYTES + 7u) / 8u];
static flash device;

static int read_slot(void *user, uint32_t slot, uint32_t offset, void *data, uint32_t bytes)
{
    memcpy(data, ((flash *)user)->slots[slot] + offset, bytes);
    return 0;
}

static int erase_slot(void *user, uint32_t slot)
{
    memset(((flash *)user)->slots[slot], 0xff, NET_SLOT_BYTES(UNIT));
    return 0;
}

static int write_slot(
    void *user, uint32_t slot, uint32_t offset, const void *data, uint32_t bytes)
{
    memcpy(((flash *)user)->slots[slot] + offset, data, bytes);
    return 0;
}

int main(void)
{
    net_context context;
    net_storage storage;
    int status = net_init(&context, arena, sizeof arena, state, sizeof state);
    storage.read = read_slot;
    storage.erase = erase_slot;
    storage.write = write_slot;
    storage.user = &device;
    storage.slot_bytes = NET_SLOT_BYTES(UNIT);
    storage.write_bytes = UNIT;
    /* The first life finds no file. */
    (void)platform_read("flash.bin", 0, &device, sizeof device);
    platform_report_count("restored", (uint64_t)net_checkpoint_read(&context, &storage));
    for (int step = 0; step < 2 && status == NET_OK; ++step) {
        float loss = 0.0f;
        status = net_train_step(&context, batch_x, batch_y, &loss);
        platform_report_float("loss", loss);
    }
    status = status != NET_OK ? status : net_checkpoint_write(&context, &storage);
    platform_report_count("bytes.stack", platform_stack_bytes());
    return status != NET_OK ? status : platform_write("flash.bin", &device, sizeof device);
}
