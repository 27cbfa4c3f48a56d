import os

# Networks of test size are slower on several threads than on one, most of all
# where tests run beside each other. Here, because it must be set before torch loads.
os.environ.setdefault("OMP_NUM_THREADS", "1")
