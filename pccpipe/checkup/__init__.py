"""Checks that a project's machine is fit for runs (`doctor`), and makes a bare VM fit (`provision`)."""
