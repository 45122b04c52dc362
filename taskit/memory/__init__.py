"""What a training step needs in memory, as a function of the strategy.

Left out, every source that is known:

* what a kernel allocates and frees inside one operator (im2col of a convolution, packed operands of a matrix
  product, as of half-precision ones on CPUs with AVX-512 or AMX), but for the weights and scales that products with
  4-bit weights unpack;
* the outlier columns of LLM.int8(), whose number depends on the activations, at evaluation;
* the loading of the weights (a quantised base is read in full precision, tensor by tensor), the fit of the linear
  head and the zoo's probe, which run before training and without a gradient;
* fragmentation: bytes that an allocator holds and cannot use (max_memory_reserved beside max_memory_allocated);
* on a GPU: the CUDA context and the kernels' code, NCCL's buffers, gradient buckets of several GPUs;
* the Python process, its libraries, the dataset and the data loader's images before they are tensors;
* constants of a few bytes, such as the running loss and bitsandbytes' code books, once a process.

The additive profile leaves out, and the rehearsal of a plan sees: which transients meet the peak, 8-bit AdamW's
32-bit state of tensors under 4096 numbers, and what gradients replace while activations go.

Where a model has to be measured on small real steps (numbers.py) and its control flow differs between them, what a
peak that moves with the rows adds is left out too.
"""
