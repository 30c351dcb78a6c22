"""The largest and smallest values that anything takes."""

MAX_NODES = 16
"""The most nodes of a cell."""
MAX_IMAGE_SIDE = 8192
"""The largest side of a network's input, in pixels."""
MAX_PATCHES = 2**16
"""The most patches of an image: 256 × 256."""
MAX_WIDTH = 2**15
"""The widest embedding, and the widest queries and keys of the score of tokens."""
MAX_LAYERS = 1024
"""The deepest network."""
MAX_RATIO = 64.0
"""The widest hidden layer of an MLP operation, over D."""
MAX_OPERATIONS = 64
"""The most attention operations of a space, the most MLP operations, and the most of other kinds."""
MAX_PRIORS = 64
"""The most searches and files that say what cells reached on other data."""
MAX_RUNGS = 32
"""The most rungs that candidates of a search are compared at."""
MAX_SIZES = 200
"""The most combinations of sizes that a search looks at: each has its own tables of costs."""
MAX_CLASSES = 10**6
"""The most classes of a model or data set."""
MAX_WORKERS = 512
"""The most processes that load images."""
MIN_TEMPERATURE = 1e-4
"""The lowest temperature of a relaxation."""
MAX_SEED = 2**32 - 1
"""The largest seed that all of the libraries take."""
