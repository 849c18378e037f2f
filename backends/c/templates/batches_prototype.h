/**
 * ${doc}
 *
 * Ends before that where the data do. The inputs are in the arena, which is to have
 * ${P}_INPUT_ARENA_BYTES. `summary` counts what was done before an error, too.
 */
int ${p}_${name}(
    ${p}_context *context, const ${p}_source *source, uint32_t batches, ${p}_summary *summary);
