int ${p}_${name}(
    ${p}_context *context, const ${p}_source *source, uint32_t batches, ${p}_summary *summary)
{
${input_variables}
    int status = check_context(context);
    if (status != ${P}_OK) {
        return status;
    }
    if (source == NULL || source->next == NULL || summary == NULL) {
        return ${P}_ERROR_NULL;
    }
    memset(summary, 0, sizeof *summary);
    if (${no_place}) {
        return ${P}_ERROR_SIZE;
    }
    while (summary->batches < batches) {
        float loss = 0.0f;
        int32_t correct = 0;
        const int count = source->next(source->user, ${inputs});
        if (count <= 0) {
            return count < 0 ? ${P}_ERROR_SOURCE : ${P}_OK;
        }
        status = ${p}_${function}(context, ${arguments});
        if (status != ${P}_OK) {
            return status;
        }
        ++summary->batches;
        summary->loss += (loss - summary->loss) / (float)summary->batches;
        summary->correct += correct;
    }
    return ${P}_OK;
}
