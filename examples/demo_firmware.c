/* Fine-tunes on the core: batches come from a file of the host, losses go to another one.
 *
 * batches.bin holds TRAIN_BATCHES, then TEST_BATCHES batches: images as floats, then labels.
 */
#include "digits.h"
#include "platform.h"

#define BATCH_BYTES ((uint32_t)(sizeof images + sizeof labels))

static uint64_t arena[(DIGITS_ARENA_BYTES + 7u) / 8u];
static uint64_t state[(DIGITS_STATE_BYTES + 7u) / 8u];
static float images[DIGITS_X_ELEMENTS];
static int32_t labels[DIGITS_Y_ELEMENTS];
static float losses[TRAIN_BATCHES];
static digits_context context;

static int read_batch(uint32_t number)
{
    const uint32_t start = number * BATCH_BYTES;
    const int32_t image_bytes = (int32_t)sizeof images;
    const int32_t label_bytes = (int32_t)sizeof labels;
    return platform_read("batches.bin", start, images, sizeof images) == image_bytes
        && platform_read("batches.bin", start + (uint32_t)sizeof images, labels, sizeof labels)
            == label_bytes;
}

/* Reports how many test images are recognised; returns a status. */
static int evaluate(const char *name)
{
    uint64_t right = 0;
    for (uint32_t i = 0; i < TEST_BATCHES; ++i) {
        float loss = 0.0f;
        int32_t correct = 0;
        int status;
        if (!read_batch(TRAIN_BATCHES + i)) {
            return DIGITS_ERROR_SIZE;
        }
        status = digits_evaluate(&context, images, labels, &loss, &correct);
        if (status != DIGITS_OK) {
            return status;
        }
        right += (uint64_t)correct;
    }
    platform_report_count(name, right);
    return DIGITS_OK;
}

static int train(void)
{
    uint64_t instructions = 0;
    for (uint32_t i = 0; i < TRAIN_BATCHES; ++i) {
        uint64_t start;
        int status;
        if (!read_batch(i)) {
            return DIGITS_ERROR_SIZE;
        }
        start = platform_instructions();
        status = digits_train_step(&context, images, labels, &losses[i]);
        instructions += platform_instructions() - start;
        if (status != DIGITS_OK) {
            return status;
        }
    }
    platform_report_count("instructions.step", instructions / TRAIN_BATCHES);
    return platform_write("losses.bin", losses, sizeof losses) == 0 ? DIGITS_OK
                                                                    : DIGITS_ERROR_SIZE;
}

int main(void)
{
    int status = digits_init(&context, arena, sizeof arena, state, sizeof state);
    if (status == DIGITS_OK) {
        status = evaluate("correct.before");
    }
    if (status == DIGITS_OK) {
        status = train();
    }
    if (status == DIGITS_OK) {
        status = evaluate("correct.after");
    }
    platform_report_count("bytes.stack", platform_stack_bytes());
    return status;
}
