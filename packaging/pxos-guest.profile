# Where the guest library is, for `LD_PRELOAD=$PXOS_SHIM ./app` and for Python's pxos_gpu.
export PXOS_SHIM=@PREFIX@/lib/pxos/libpxshim.so
