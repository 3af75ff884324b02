"""The search itself: budget planning, runs, evaluation, user control, observers."""
