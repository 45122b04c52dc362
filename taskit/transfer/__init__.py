"""How similar the new task is to learned ones (Eq. 4), and which locations matter for it (Eqs. 2 and 3)."""
