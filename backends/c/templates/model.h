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
 * overlap each other, the arena or the state, but for inputs at ${p}_input_... of the context.
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
/** Bytes of the state that training steps change. */
#define ${P}_PAYLOAD_BYTES ${payload_bytes}u
/** Bytes of what ${p}_save writes. */
#define ${P}_SAVE_BYTES (${P}_PAYLOAD_BYTES + 32u)
/** The largest `write_bytes` of a storage. */
#define ${P}_WRITE_BYTES_MAX 256u
/** Bytes of a slot that is written in pieces of `unit` bytes. */
#define ${P}_SLOT_BYTES(unit) \
    ((31u + (unit)) / (unit) * (unit) \
        + (${P}_PAYLOAD_BYTES + (unit) - 1u) / (unit) * (unit))
/** Identifies the model and what its training steps change: the same for every target. */
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
    ${P}_ERROR_FORMAT = 6,    /**< there is no saved state of this version */
    ${P}_ERROR_MODEL = 7,     /**< the saved state is of another model */
    ${P}_ERROR_CHECKSUM = 8,  /**< the saved state is damaged */
    ${P}_ERROR_STORAGE = 9,   /**< the storage failed, or does not hold what was written */
    ${P}_ERROR_SOURCE = 10    /**< the source of batches failed */
};

/** A model in use; the members belong to the library. */
typedef struct {
${members}
    float lr;
    uint32_t ready;
} ${p}_context;

/**
 * Two slots (0 and 1) of a memory that keeps its content without power, such as flash.
 *
 * The functions return 0, or anything else if they fail. Offsets are bytes from the slot's start.
 */
typedef struct {
    int (*read)(void *user, uint32_t slot, uint32_t offset, void *data, uint32_t bytes);
    /** Makes all bytes of a slot writable (in flash: 0xff). NULL if they always are. */
    int (*erase)(void *user, uint32_t slot);
    /** Offset and number of bytes are multiples of `write_bytes`; no byte is written twice. */
    int (*write)(void *user, uint32_t slot, uint32_t offset, const void *data, uint32_t bytes);
    void *user;
    /** At least ${P}_SLOT_BYTES(write_bytes). */
    uint32_t slot_bytes;
    /** The smallest piece that can be written: 1 to ${P}_WRITE_BYTES_MAX. */
    uint32_t write_bytes;
} ${p}_storage;

/**
 * Prepares a context and puts the model's initial state into `state`.
 *
 * An arena of ${P}_ARENA_BYTES serves every function; each needs only its own
 * (`${P}_<FUNCTION>_ARENA_BYTES`) and returns ${P}_ERROR_SIZE with less.
 */
int ${p}_init(${p}_context *context,
    ${init_parameters});

${entry_prototypes}
/**
 * Where an input may lie in the arena of the context, so that it needs no memory of its own: no
 * function has anything there before it has read the input for the last time. Every function may
 * overwrite it.
 *
 * NULL if the context is not initialised, or its arena smaller than ${P}_INPUT_ARENA_BYTES.
 */
${input_prototypes}

${batch_functions}/** Changes the learning rate of the following steps. */
int ${p}_set_lr(${p}_context *context, float lr);

/**
 * Writes what training changes (${P}_SAVE_BYTES bytes) to `buffer` and their number to `written`.
 *
 * That is the learning rate and the part of the state that steps write. The bytes are the same on
 * every target; `TrainingStep.load_c` reads and `TrainingStep.save_c` writes them in Python.
 */
int ${p}_save(const ${p}_context *context, void *buffer, size_t size, size_t *written);

/** Takes over a saved state. Everything is checked first: on an error the state is unchanged. */
int ${p}_load(${p}_context *context, const void *buffer, size_t size);

/**
 * Saves the state in the slot that does not hold the newest saved one.
 *
 * Power may fail at any time: the newest state saved before is still there, or the new one is
 * whole. Reads both slots, and what was written once more. Needs no memory but the stack.
 */
int ${p}_checkpoint_write(const ${p}_context *context, const ${p}_storage *storage);

/**
 * Takes over the newest state that is whole, from either slot.
 *
 * If there is none the state is unchanged: ${P}_ERROR_FORMAT (nothing was saved yet),
 * ${P}_ERROR_MODEL, ${P}_ERROR_CHECKSUM, or ${P}_ERROR_STORAGE if a slot cannot be read. If the
 * storage fails while the state is copied, the context must be initialised again.
 */
int ${p}_checkpoint_read(${p}_context *context, const ${p}_storage *storage);

#ifdef __cplusplus
}
#endif

#endif
