/* What the kernels and saved states rely on. */
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "this library is for little-endian cores"
#endif
typedef char ${p}_check_float[(sizeof(float) == 4) ? 1 : -1];
typedef char ${p}_check_int[(sizeof(int) >= 4) ? 1 : -1];
typedef char ${p}_check_state[(${P}_STATE_BYTES >= ${state_image_bytes}u) ? 1 : -1];
#if defined(${P}_RAM_LIMIT)
typedef char ${p}_check_ram[(${P}_ARENA_BYTES + ${P}_STATE_BYTES <= ${P}_RAM_LIMIT) ? 1 : -1];
#endif

#define CONTEXT_READY 0x6e69776bu

static int check_context(const ${p}_context *context)
{
    if (context == NULL) {
        return ${P}_ERROR_NULL;
    }
    return context->ready != CONTEXT_READY ? ${P}_ERROR_CONTEXT : ${P}_OK;
}

int ${p}_init(${p}_context *context,
    ${init_parameters})
{
    if (context == NULL || ${any_null}) {
        return ${P}_ERROR_NULL;
    }
    context->ready = 0;
    if (${state_too_small}) {
        return ${P}_ERROR_SIZE;
    }
    if (${any_unaligned}) {
        return ${P}_ERROR_ALIGNMENT;
    }
${clear_state}
${copy_initial_state}
${set_blocks}
    context->lr = ${P}_INITIAL_LR;
    context->ready = CONTEXT_READY;
    return ${P}_OK;
}

${entry_functions}
int ${p}_set_lr(${p}_context *context, float lr)
{
    const int status = check_context(context);
    if (status != ${P}_OK) {
        return status;
    }
    if (!(lr >= 0.0f && lr < INFINITY)) {
        return ${P}_ERROR_VALUE;
    }
    context->lr = lr;
    return ${P}_OK;
}
