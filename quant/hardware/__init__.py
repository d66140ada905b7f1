"""What a GPU runs natively, what this machine is, and what other hardware would compute."""
