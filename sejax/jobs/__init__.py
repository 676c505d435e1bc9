"""What trains the jobs of a study, and where: one after the other in this process, or as tasks of a cluster."""
