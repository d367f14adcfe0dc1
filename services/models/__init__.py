"""Model families behind one interface: a backbone, and the roles that share it."""
