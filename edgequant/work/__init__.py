"""Work of a model on an emulated CPU: instructions, which repeat; no time, for nothing of caches, memory or clock is in
them."""
