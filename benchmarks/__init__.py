"""What pccpipe costs, beside what a user would pick instead: one command, medians and ratios in one run."""
