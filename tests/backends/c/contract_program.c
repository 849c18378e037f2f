/* Calls every function of the small model's interface, rightly and wrongly. Returns the number of
 * the first check that fails. */
#include "small.h"

#include <string.h>

static uint64_t arena[SMALL_ARENA_BYTES / 8u];
static uint64_t state[SMALL_STATE_BYTES / 8u];
static unsigned char saved[SMALL_SAVE_BYTES + 1u];
static unsigned char bad[SMALL_SAVE_BYTES];
static unsigned char before[SMALL_STATE_BYTES];

#define CHECK(condition)                                                                         \
    do {                                                                                         \
        ++check;                                                                                 \
        if (!(condition)) {                                                                      \
            return check;                                                                        \
        }                                                                                        \
    } while (0)

int main(void)
{
    static const float x[4] = {1.0f, 2.0f, 3.0f, 4.0f};
    static const float y[4] = {0.0f, 1.0f, 0.0f, 1.0f};
    small_context context;
    small_context fresh;
    float out[4];
    float loss = 0.0f;
    float first_loss;
    size_t written = 0;
    size_t i;
    int check = 0;
    memset(&context, 0, sizeof context);

    /* 1: nothing works before init */
    CHECK(small_infer(&context, x, out) == SMALL_ERROR_CONTEXT);
    CHECK(small_save(&context, saved, sizeof saved, &written) == SMALL_ERROR_CONTEXT);
    /* 3: init */
    CHECK(small_init(NULL, arena, sizeof arena, state, sizeof state) == SMALL_ERROR_NULL);
    CHECK(small_init(&context, NULL, sizeof arena, state, sizeof state) == SMALL_ERROR_NULL);
    CHECK(small_init(&context, arena, sizeof arena, NULL, sizeof state) == SMALL_ERROR_NULL);
    CHECK(small_init(&context, arena, sizeof arena, state, sizeof state - 1) == SMALL_ERROR_SIZE);
    CHECK(small_init(&context, (char *)arena + 4, sizeof arena, state, sizeof state)
        == SMALL_ERROR_ALIGNMENT);
    CHECK(small_infer(&context, x, out) == SMALL_ERROR_CONTEXT);
    CHECK(small_init(&context, arena, SMALL_INFER_ARENA_BYTES, state, sizeof state) == SMALL_OK);
    /* 10: an arena for inference alone does not serve training */
    CHECK(small_infer(&context, x, out) == SMALL_OK);
    CHECK(small_train_step(&context, x, y, &loss) == SMALL_ERROR_SIZE);
    CHECK(small_init(&context, arena, sizeof arena, state, sizeof state) == SMALL_OK);
    /* 13: null arguments */
    CHECK(small_train_step(NULL, x, y, &loss) == SMALL_ERROR_NULL);
    CHECK(small_train_step(&context, NULL, y, &loss) == SMALL_ERROR_NULL);
    CHECK(small_train_step(&context, x, NULL, &loss) == SMALL_ERROR_NULL);
    CHECK(small_train_step(&context, x, y, NULL) == SMALL_ERROR_NULL);
    CHECK(small_evaluate(&context, x, y, NULL) == SMALL_ERROR_NULL);
    CHECK(small_infer(&context, x, NULL) == SMALL_ERROR_NULL);
    /* 19: the learning rate */
    CHECK(small_set_lr(&context, -1.0f) == SMALL_ERROR_VALUE);
    CHECK(small_set_lr(&context, (float)strlen("") / (float)strlen("")) == SMALL_ERROR_VALUE);
    CHECK(small_set_lr(&context, 0.0f) == SMALL_OK);
    CHECK(small_train_step(&context, x, y, &first_loss) == SMALL_OK);
    CHECK(small_evaluate(&context, x, y, &loss) == SMALL_OK);
    CHECK(loss == first_loss);
    CHECK(small_set_lr(&context, 0.05f) == SMALL_OK);
    /* 26: save */
    CHECK(small_save(&context, saved, SMALL_SAVE_BYTES - 1u, &written) == SMALL_ERROR_SIZE);
    CHECK(small_save(&context, NULL, sizeof saved, &written) == SMALL_ERROR_NULL);
    CHECK(small_save(&context, saved, sizeof saved, NULL) == SMALL_ERROR_NULL);
    CHECK(written == 0);
    CHECK(small_train_step(&context, x, y, &loss) == SMALL_OK);
    CHECK(small_save(&context, saved + 1, SMALL_SAVE_BYTES, &written) == SMALL_OK);
    CHECK(written == SMALL_SAVE_BYTES);
    CHECK(small_evaluate(&context, x, y, &first_loss) == SMALL_OK);
    CHECK(first_loss < loss);
    /* 35: load into a fresh model gives the same loss */
    CHECK(small_init(&fresh, arena, sizeof arena, state, sizeof state) == SMALL_OK);
    CHECK(small_evaluate(&fresh, x, y, &loss) == SMALL_OK && loss != first_loss);
    CHECK(small_load(&fresh, saved + 1, SMALL_SAVE_BYTES) == SMALL_OK);
    CHECK(small_evaluate(&fresh, x, y, &loss) == SMALL_OK && loss == first_loss);
    /* 39: every damaged byte is found, and the state stays */
    CHECK(small_train_step(&fresh, x, y, &loss) == SMALL_OK);
    memcpy(before, state, sizeof before);
    CHECK(small_load(&fresh, NULL, SMALL_SAVE_BYTES) == SMALL_ERROR_NULL);
    CHECK(small_load(&fresh, saved + 1, SMALL_SAVE_BYTES - 1u) == SMALL_ERROR_SIZE);
    for (i = 0; i < SMALL_SAVE_BYTES; ++i) {
        memcpy(bad, saved + 1, sizeof bad);
        bad[i] = (unsigned char)(bad[i] ^ 0x40u);
        if (small_load(&fresh, bad, sizeof bad) < SMALL_ERROR_FORMAT) {
            return 100;
        }
        if (memcmp(before, state, sizeof before) != 0) {
            return 101;
        }
    }
    return 0;
}
