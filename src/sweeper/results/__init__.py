"""The files a run leaves, and the verbs that read them."""
