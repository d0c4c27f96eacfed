"""Training: thin Lightning modules over terms, objective and optimiser; runs that survive being killed."""
