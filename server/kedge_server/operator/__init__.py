"""The operator's commands: ``kedge release|rollout|device``. They speak HTTP, nothing else."""
