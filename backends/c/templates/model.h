/**
 * @file ${p}.h
 * @brief A neural network that trains on the device.
 *
 * Written by niwaki ${version}; do not edit.
 * Model  ${model_hash}
 * Target ${target}
 * Options ${options}
 *
 * Memory, in bytes (all of it is the caller's but for the constants):
 *
${memory_table}
 *
 * State, by offset (what a training step changes):
 *
${state_table}
 *
 * Constants (frozen, read only):
 *
${constant_table}
 *
 * No function allocates memory, prints or keeps anything outside the context. Different contexts
 * may be used at the same time; one context may not. The arrays passed to a function must not
 * overlap each other, the arena or the state.
 */
#ifndef ${P}_H
#define ${P}_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Alignment of the arena and of the state. */
#define ${P}_ALIGNMENT 8u
${size_macros}
/** Bytes of what ${p}_save writes. */
#define ${P}_SAVE_BYTES (${P}_STATE_BYTES + 24u)
/** Identifies the model and the layout of its state. */
#define ${P}_MODEL_HASH "${model_hash}"
/** The learning rate until ${p}_set_lr is called. */
#define ${P}_INITIAL_LR ${learning_rate}
${sections}
/** What the functions return. */
enum {
    ${P}_OK = 0,
    ${P}_ERROR_NULL = 1,      /**< a pointer is NULL */
    ${P}_ERROR_SIZE = 2,      /**< the arena, the state or a buffer is too small */
    ${P}_ERROR_ALIGNMENT = 3, /**< the arena or the state is not aligned to ${P}_ALIGNMENT */
    ${P}_ERROR_CONTEXT = 4,   /**< the context was not initialised */
    ${P}_ERROR_VALUE = 5,     /**< the learning rate is negative or no number */
    ${P}_ERROR_FORMAT = 6,    /**< the buffer does not hold a saved state of this version */
    ${P}_ERROR_MODEL = 7,     /**< the saved state is of another model */
    ${P}_ERROR_CHECKSUM = 8   /**< the saved state is damaged */
};

/** A model in use; the members belong to the library. */
typedef struct {
${members}
    float lr;
    uint32_t ready;
} ${p}_context;

/**
 * Prepares a context and puts the model's initial state into `state`.
 *
 * An arena of ${P}_ARENA_BYTES serves every function; each needs only its own
 * (`${P}_<FUNCTION>_ARENA_BYTES`) and returns ${P}_ERROR_SIZE with less.
 */
int ${p}_init(${p}_context *context,
    ${init_parameters});

${entry_prototypes}
/** Changes the learning rate of the following steps. */
int ${p}_set_lr(${p}_context *context, float lr);

/**
 * Writes the state (${P}_SAVE_BYTES bytes) to `buffer` and their number to `written`.
 *
 * The bytes are in the order of this core.
 */
int ${p}_save(const ${p}_context *context, void *buffer, size_t size, size_t *written);

/** Takes over a saved state. Everything is checked first: on an error the state is unchanged. */
int ${p}_load(${p}_context *context, const void *buffer, size_t size);

#ifdef __cplusplus
}
#endif

#endif
