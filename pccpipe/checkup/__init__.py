"""Whether a project's VM, or this machine, is fit for its runs (`doctor`), and making a bare one so (`provision`)."""
