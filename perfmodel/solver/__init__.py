"""Which of all deployments is best, and why are the others not?"""
