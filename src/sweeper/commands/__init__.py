"""The command line's verbs, one file each, and what a person sees."""
