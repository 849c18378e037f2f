/* Trains, evaluates and infers with inputs in the arena, and beside it with inputs of its own.
 * Returns the line of the first check that fails. */
#include "net.h"
#include "net_vectors.h"

#include <string.h>

#define CHECK(condition)                                                                         \
    do {                                                                                         \
        if (!(condition)) {                                                                      \
            return __LINE__;                                                                     \
        }                                                                                        \
    } while (0)

ARRAYS

typedef struct {
    uint32_t left;
    uint32_t given;
    int at_end;
} data;

/* Batch `number`, in an arena in which nothing else lasts. */
static void fill_batch(uint32_t number, float *x, int32_t *y)
{
    uint32_t i;
    POISON
    for (i = 0; i < NET_X_ELEMENTS; ++i) {
        x[i] = batch_x[i] + 0.125f * (float)number;
    }
    memcpy(y, batch_y, sizeof batch_y);
}

static int next_batch(void *user, float *x, int32_t *y)
{
    data *d = (data *)user;
    if (d->left == 0) {
        return d->at_end;
    }
    --d->left;
    fill_batch(d->given++, x, y);
    return 1;
}

int main(void)
{
    static float x[NET_X_ELEMENTS];
    static int32_t y[NET_Y_ELEMENTS];
    static float out[NET_OUT_ELEMENTS];
    static float out_in_arena[NET_OUT_ELEMENTS];
    static unsigned char expected[NET_SAVE_BYTES];
    static unsigned char saved[NET_SAVE_BYTES];
    net_context context;
    net_source source;
    net_summary summary;
    data d = {5, 0, 0};
    float total = 0.0f;
    float evaluated = 0.0f;
    float error;
    int32_t right = 0;
    uint32_t number;
    size_t written;
    source.next = next_batch;
    source.user = &d;
    /* inputs of their own */
    CHECK(net_init(&context, ARGUMENTS) == NET_OK);
    for (number = 0; number < 5; ++number) {
        float loss;
        fill_batch(number, x, y);
        CHECK(net_train_step(&context, x, y, &loss) == NET_OK);
        total += loss;
    }
    for (number = 5; number < 8; ++number) {
        float loss;
        int32_t correct;
        fill_batch(number, x, y);
        CHECK(net_evaluate(&context, x, y, &loss, &correct) == NET_OK);
        evaluated += loss;
        right += correct;
    }
    CHECK(net_infer(&context, x, out) == NET_OK);
    CHECK(net_save(&context, expected, sizeof expected, &written) == NET_OK);
    /* the same in the arena; the data end first */
    CHECK(net_init(&context, ARGUMENTS) == NET_OK);
    CHECK(net_train(&context, &source, 9, &summary) == NET_OK && summary.batches == 5);
    error = summary.loss * 5.0f - total;
    CHECK(error < 1e-4f && error > -1e-4f && summary.correct == 0);
    CHECK(net_save(&context, saved, sizeof saved, &written) == NET_OK);
    CHECK(memcmp(saved, expected, sizeof saved) == 0);
    /* more data than asked for */
    d.left = 9;
    CHECK(net_evaluate_all(&context, &source, 3, &summary) == NET_OK && summary.batches == 3);
    CHECK(d.left == 6 && summary.correct == right);
    error = summary.loss * 3.0f - evaluated;
    CHECK(error < 1e-4f && error > -1e-4f);
    fill_batch(7, net_input_x(&context), net_input_y(&context));
    CHECK(net_infer(&context, net_input_x(&context), out_in_arena) == NET_OK);
    CHECK(memcmp(out, out_in_arena, sizeof out) == 0);
    /* a source that fails after two batches */
    d.left = 2;
    d.at_end = -1;
    CHECK(net_train(&context, &source, 9, &summary) == NET_ERROR_SOURCE && summary.batches == 2);
    /* arguments */
    CHECK(net_train(NULL, &source, 1, &summary) == NET_ERROR_NULL);
    CHECK(net_train(&context, NULL, 1, &summary) == NET_ERROR_NULL);
    CHECK(net_evaluate_all(&context, &source, 1, NULL) == NET_ERROR_NULL);
    source.next = NULL;
    CHECK(net_evaluate_all(&context, &source, 1, &summary) == NET_ERROR_NULL);
    source.next = next_batch;
    /* an arena without room for inputs */
    CHECK(net_init(&context, SMALL_ARGUMENTS) == NET_OK);
    CHECK(net_input_x(&context) == NULL && net_input_y(&context) == NULL);
    CHECK(net_train(&context, &source, 1, &summary) == NET_ERROR_SIZE);
    CHECK(net_input_x(NULL) == NULL);
    return 0;
}
