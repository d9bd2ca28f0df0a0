"""From verdicts to one reward; verifiers run in worker processes."""
