"""Project VMs, Docker engines and a scripted model on one machine, for tests and for trying things out."""
