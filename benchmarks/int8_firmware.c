/* One inference and STEPS training steps on samples of the host; the state goes to a file. */
#include "net.h"
#include "platform.h"

static uint64_t arena[(NET_ARENA_BYTES + 7u) / 8u];
static uint64_t state[(NET_STATE_BYTES + 7u) / 8u];
static int8_t image[NET_X_ELEMENTS];
static int32_t label[NET_Y_ELEMENTS];
static float output[NET_OUT_ELEMENTS];
static net_context context;

static int read_sample(uint32_t number)
{
    const uint32_t start = number * (uint32_t)(sizeof image + sizeof label);
    const uint32_t middle = start + (uint32_t)sizeof image;
    return platform_read("samples.bin", start, image, sizeof image) == (int32_t)sizeof image
        && platform_read("samples.bin", middle, label, sizeof label) == (int32_t)sizeof label;
}

int main(void)
{
    float losses[STEPS];
    uint64_t start;
    int status = net_init(&context, arena, sizeof arena, state, sizeof state);
    if (status != NET_OK || !read_sample(0)) {
        return 1;
    }
    start = platform_instructions();
    status = net_infer(&context, image, output);
    platform_report_count("instructions.infer", platform_instructions() - start);
    for (uint32_t i = 0; i < STEPS && status == NET_OK; ++i) {
        if (!read_sample(i)) {
            return 1;
        }
        start = platform_instructions();
        status = net_train_step(&context, image, label, &losses[i]);
        platform_report_count("instructions.step", platform_instructions() - start);
    }
    platform_report_count("bytes.stack", platform_stack_bytes());
    if (platform_write("outputs.bin", output, sizeof output) != 0
        || platform_write("losses.bin", losses, sizeof losses) != 0
        || platform_write("state.bin", state, NET_STATE_BYTES) != 0) {
        return 1;
    }
    return status;
}
