"""Commands that outlive the shell that started them, on this machine and on the VM alike."""
