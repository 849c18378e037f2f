/** Where batches come from. */
typedef struct {
    /**
     * Puts a batch into the arrays, which are in the arena, as from a sensor, a file or a link.
     *
     * Returns 1; 0, with no batch, at the end of the data; less than 0 if it failed.
     */
    int (*next)(void *user, ${batch_pointers});
    void *user;
} ${p}_source;

/** What came of a number of batches. */
typedef struct {
    uint32_t batches;
    float loss;      /**< mean over the batches */
    int32_t correct; /**< right answers of an evaluation; 0 where none are counted */
} ${p}_summary;

${prototypes}
